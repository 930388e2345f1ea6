"""Greedy decoding: transformers' generate against `sandhi bench decode`, on the same weights and prompts.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 transformers
    cargo build --release -p sandhi
    venv/bin/python bench/decode.py MODEL [--threads 2] [--rounds 7] [--batch 64] [--json FILE]

MODEL is a directory with a language model of ours. Its weights are loaded into transformers' Qwen3 (norms over
queries and keys) or Llama (without). Every round times both once, one after the other; reported are medians and the
median of the rounds' ratios. In the clock: from prompts in memory to the ids of all answers, all of one length. Not
in the clock: imports, loading, one round to warm up. Prompts have one length, so that nobody pads.
Before timing, the answers are compared: sums in another order may flip a close decision, after which an answer goes
its own way, so the share of equal first tokens and of equal answers is printed, and a share of first tokens under
99 % ends the run.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--prompts", type=int, default=64)
parser.add_argument("--prompt-tokens", type=int, default=32)
parser.add_argument("--new-tokens", type=int, default=64)
parser.add_argument("--binary", default="target/release/sandhi")
parser.add_argument("--json", type=Path)
arguments = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(arguments.threads)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

torch.set_num_threads(arguments.threads)
torch.set_grad_enabled(False)


def peer(directory):
    config = json.loads((directory / "model.json").read_text())
    ours = config["text"]["transformer"]
    tensors = load_file(directory / "language_model.safetensors")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    n_tokens, width = tensors["model.embed_tokens.weight"].shape
    settings = {
        "vocab_size": n_tokens,
        "hidden_size": width,
        "intermediate_size": ours["d_ff"],
        "num_hidden_layers": ours["n_layers"],
        "num_attention_heads": ours["n_heads"],
        "num_key_value_heads": ours.get("n_kv_heads") or ours["n_heads"],
        "head_dim": ours.get("d_head") or width // ours["n_heads"],
        "rms_norm_eps": ours.get("norm_eps", 1e-5),
        "rope_theta": ours.get("rope_theta", 10_000.0),
        "tie_word_embeddings": ours.get("tie_embeddings", False),
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if ours.get("qk_norm"):
        model = Qwen3ForCausalLM(Qwen3Config(**settings))
    else:
        model = LlamaForCausalLM(LlamaConfig(**settings))
    missing, extra = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if name != "lm_head.weight" or not settings["tie_word_embeddings"]]
    if missing or extra:
        raise SystemExit(f"weights do not fit: missing {missing}, left over {extra}")
    model.tie_weights()
    return model.eval()


def ours(rounds, out=None):
    command = [arguments.binary, "bench", "decode", str(arguments.model), "--json", "--rounds", str(rounds)]
    for name in ["prompts", "prompt_tokens", "new_tokens", "batch"]:
        command += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
    if out:
        command += ["--out", out]
    environment = os.environ | {"RAYON_NUM_THREADS": str(arguments.threads)}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)["seconds"]


def theirs(model, prompts):
    answers = []
    start = time.perf_counter()
    for first in range(0, len(prompts), arguments.batch):
        ids = prompts[first : first + arguments.batch]
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=arguments.new_tokens,
            min_new_tokens=arguments.new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        answers += found[:, ids.shape[1] :].tolist()
    return time.perf_counter() - start, answers


model = peer(arguments.model)
with tempfile.NamedTemporaryFile(suffix=".json") as file:
    ours(1, file.name)
    work = json.loads(Path(file.name).read_text())
prompts = torch.tensor(work["prompts"])
_, answers = theirs(model, prompts)
pairs = list(zip(work["answers"], answers, strict=True))
first = sum(a[0] == b[0] for a, b in pairs) / len(pairs)
equal = sum(a == b for a, b in pairs) / len(pairs)
print(f"equal first tokens {first:.1%}, equal answers {equal:.1%}")
if first < 0.99:
    raise SystemExit("the two do not compute the same")

times = {"sandhi": [], "transformers": []}
for _ in range(arguments.rounds):
    times["sandhi"].append(ours(1))
    times["transformers"].append(theirs(model, prompts)[0])
n = arguments.prompts * arguments.new_tokens
medians = {name: statistics.median(seconds) for name, seconds in times.items()}
ratio = statistics.median(t / s for s, t in zip(times["sandhi"], times["transformers"], strict=True))
for name, seconds in medians.items():
    print(f"{name:14} {seconds:.3f} s, {n / seconds:.0f} tokens/s")
print(f"ratio {ratio:.2f} (times as fast as transformers), {arguments.threads} threads, batch {arguments.batch}")
if arguments.json:
    report = {"seconds": times, "ratio": ratio, "equal_answers": equal, "arguments": vars(arguments)}
    arguments.json.write_text(json.dumps(report, default=str, indent=1))
