"""Writes crates/sandhi-lab/tests/golden/chat_templates/: chat templates of the usual forms, and what transformers makes of them.

    python3 -m venv venv && venv/bin/pip install transformers==5.23.0 jinja2
    venv/bin/python tools/golden/chat_templates.py

`tokenizer.json` is a small byte-level BPE, `tokenizer_pieces.json` one as SentencePiece makes them, which puts a space before every
text. `cases.json` has for every form the files beside it, the text that
`apply_chat_template` writes for one user turn and for the answer to it, and the ids of both.
"""

import json
import tempfile
from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

OUT = Path(__file__).resolve().parents[2] / "crates/sandhi-lab/tests/golden/chat_templates"
SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
]
INSTRUCTION = "Write down what you hear."
SPEECH = "the mill is open"
ANSWER = "The mill is open."

CHATML = """
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = 'Be brief.' %}
    {%- set turns = messages %}
{%- endif %}
{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- for turn in turns %}
    {{- '<|im_start|>' + turn.role + '\\n' + turn.content.strip() + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

HEADERS = """{{ bos_token }}
{%- if strftime_now is defined %}
    {%- set today = strftime_now("%d %b %Y") %}
{%- else %}
    {%- set today = "1 May 2024" %}
{%- endif %}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

INST = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)

# As INST, its marks plain text and a space before the instruction.
PIECES = INST.replace("[INST] ", "<<ask>> ").replace(" [/INST]", " <<say>>")

# Name, tokenizer_config.json, chat_template.jinja, generation_config.json, template arguments.
CASES = [
    (
        "chatml",
        {"eos_token": "<|im_end|>", "chat_template": CHATML},
        None,
        {"eos_token_id": ["<|im_end|>", "<|endoftext|>"]},
    ),
    (
        "headers",
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|endoftext|>"},
        HEADERS,
        {"eos_token_id": ["<|endoftext|>", "<|eot_id|>"]},
    ),
    (
        "inst",
        {
            "bos_token": {"content": "<s>", "__type": "AddedToken", "special": True},
            "eos_token": {"content": "</s>", "__type": "AddedToken", "special": True},
            "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": INST}],
        },
        None,
        None,
    ),
    ("pieces", {"bos_token": "<s>", "eos_token": "</s>", "chat_template": PIECES}, None, None),
]


def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([INSTRUCTION, SPEECH, ANSWER, "user assistant system the mill hears"] * 3, trainer)
    return tokenizer


def pieces() -> Tokenizer:
    """As Llama 2's: no splitting, a space before the text, bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    # No piece goes over a space.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    tokenizer.train_from_iterator([INSTRUCTION, SPEECH, ANSWER, "<<ask>> the mill <<say>> hears"] * 3, trainer)
    # Bytes are pieces, not marks.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    state["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(state))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    plain, spaced = tokenizer(), pieces()
    plain.save(str(OUT / "tokenizer.json"), pretty=False)
    spaced.save(str(OUT / "tokenizer_pieces.json"), pretty=False)
    cases = {}
    for name, about, template, generation in CASES:
        words = spaced if name == "pieces" else plain
        files = {"tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **about})}
        if template is not None:
            files["chat_template.jinja"] = template
        if generation is not None:
            ids = [words.token_to_id(token) for token in generation["eos_token_id"]]
            files["generation_config.json"] = json.dumps({"eos_token_id": ids})
        with tempfile.TemporaryDirectory() as folder:
            for file, text in files.items():
                (Path(folder) / file).write_text(text)
            words.save(str(Path(folder) / "tokenizer.json"))
            theirs = AutoTokenizer.from_pretrained(folder)
            asked = [{"role": "user", "content": f"{INSTRUCTION}\n{SPEECH}"}]
            told = [*asked, {"role": "assistant", "content": ANSWER}]
            prompt = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=False)
            conversation = theirs.apply_chat_template(told, tokenize=False, enable_thinking=False)
            ids = words.encode(prompt, add_special_tokens=False).ids
        cases[name] = {"files": files, "prompt": prompt, "conversation": conversation, "ids": ids}
    about = {
        "made_by": "tools/golden/chat_templates.py",
        "transformers": transformers.__version__,
        "instruction": INSTRUCTION,
        "speech": SPEECH,
        "answer": ANSWER,
        "cases": cases,
    }
    (OUT / "cases.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
