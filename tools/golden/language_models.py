"""Writes crates/sandhi-lab/tests/golden/language_models/: tiny random checkpoints and what their authors' code makes of them.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors
    venv/bin/python tools/golden/language_models.py

One folder a family, laid out as published checkpoints are: `config.json`, safetensors in one file or in shards
with an index, in f32, bf16 or f16. `reference.safetensors` holds, for two sequences run alone:

    input_ids.N [n]                  logits.N [n, vocabulary]          hidden.N.DEPTH [n, d_model]
    greedy.N [8]                     what greedy decoding goes on with
    gradient.NAME                    of the mean cross-entropy of the next token over both sequences

Hidden states are those of `output_hidden_states`: depth 0 is the embedding, the last depth is after the last norm. Both
sequences as one padded batch are compared here with the same alone. Weights are drawn ten times as wide as usual, norms too,
so that a part that is left out shows.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

OUT = Path(__file__).resolve().parents[2] / "crates/sandhi-lab/tests/golden/language_models"
VERSIONS = {
    "made_by": "tools/golden/language_models.py",
    "torch": torch.__version__,
    "transformers": transformers.__version__,
}
SIZES = {
    "vocab_size": 80,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SEQUENCES = [[1, 17, 33, 4, 79, 60, 12, 12, 45, 3, 28, 51, 9, 66, 70, 31, 8], [1, 5, 44, 44, 73, 20]]
N_GREEDY = 8

# Scaling with short lengths, so that a sequence of seventeen tokens reaches all three bands of frequencies.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def families():
    """Name, configuration, dtype, largest shard, and how config.json is changed to what old checkpoints have."""
    yield "llama2", LlamaConfig(**{**SIZES, "num_key_value_heads": 4}), torch.float16, None, "rope_theta"
    yield "llama3", LlamaConfig(
        **SIZES, rope_parameters={"rope_theta": 500.0, **LLAMA3}
    ), torch.float32, "12KB", "rope_scaling"
    yield "llama_linear", LlamaConfig(
        **SIZES, head_dim=8, attention_bias=True,
        rope_parameters={"rope_theta": 10_000.0, "rope_type": "linear", "factor": 2.0},
    ), torch.float32, None, None
    yield "mistral", MistralConfig(**SIZES, sliding_window=5), torch.bfloat16, None, "rope_theta"
    yield "qwen2", Qwen2Config(**SIZES, tie_word_embeddings=True), torch.bfloat16, None, "rope_theta"
    yield "qwen3", Qwen3Config(**SIZES, head_dim=8), torch.float32, "12KB", None
    yield "smollm3", SmolLM3Config(
        **{**SIZES, "num_hidden_layers": 4}, tie_word_embeddings=True
    ), torch.float32, None, None


def old_style(config, how):
    """The fields that checkpoints had before rope_parameters."""
    if how is None:
        return
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if how == "rope_scaling":
        config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")


def make(name, config, dtype, shard, how):
    torch.manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard or "1GB")
    # Loaded anew: what the file can hold is what the reference computes with, and casting a model would have cast the
    # rotary frequencies too.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    written = json.loads(path.read_text())
    old_style(written, how)
    path.write_text(json.dumps(written, indent=2) + "\n")

    reference = {}
    loss, n = 0.0, 0
    for i, ids in enumerate(SEQUENCES):
        tokens = torch.tensor([ids])
        out = model(tokens, output_hidden_states=True)
        reference[f"input_ids.{i}"] = tokens[0]
        reference[f"logits.{i}"] = out.logits[0].detach().clone()
        for depth, hidden in enumerate(out.hidden_states):
            reference[f"hidden.{i}.{depth}"] = hidden[0].detach().clone()
        loss = loss + torch.nn.functional.cross_entropy(out.logits[0, :-1], tokens[0, 1:], reduction="sum")
        n += len(ids) - 1
        greedy = list(ids)
        for _ in range(N_GREEDY):
            with torch.no_grad():
                greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
        reference[f"greedy.{i}"] = torch.tensor(greedy[len(ids) :])
    (loss / n).backward()
    for path, parameter in model.named_parameters():
        reference[f"gradient.{path}"] = parameter.grad.clone()

    longest = max(map(len, SEQUENCES))
    padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in SEQUENCES])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in SEQUENCES])
    with torch.no_grad():
        together = model(padded, attention_mask=mask).logits
    worst = max(
        float((together[i, : len(ids)] - reference[f"logits.{i}"]).abs().max()) for i, ids in enumerate(SEQUENCES)
    )
    save_file(reference, folder / "reference.safetensors", VERSIONS)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {size // 1024} kB, padded batch differs by {worst:.1e}, {sorted(p.name for p in folder.iterdir())}")


for family in families():
    make(*family)
