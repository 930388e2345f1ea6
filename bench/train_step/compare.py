"""One training step of a 13.8 M language model: PyTorch eager against sandhi, step by step in turn.

Both start from the same weights, see the same tokens, use the same number of threads, and must
report the same losses. Prints medians and their ratio.

    cargo build --release -p sandhi-nn --example train_step
    python bench/train_step/compare.py --threads 2 --steps 20

Needs torch and nothing else.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--warmup", type=int, default=3)
parser.add_argument("--binary", default="target/release/examples/train_step")
arguments = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(arguments.threads)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(arguments.threads)
N_TOKENS, D, LAYERS, HEADS, FF, SEQUENCES, LENGTH = 4096, 384, 6, 6, 1024, 8, 256


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x):
        return F.rms_norm(x, (D,), self.weight, 1e-5)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"]:
            setattr(self, name, nn.Linear(D, D, bias=False))

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape

        def heads(y):
            return y.view(batch, length, HEADS, D // HEADS).transpose(1, 2)

        def turn(y):
            a, b = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-b, a), dim=-1) * sin

        q, k, v = turn(heads(self.q_proj(x))), turn(heads(self.k_proj(x))), heads(self.v_proj(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, D))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj = nn.Linear(D, FF, bias=False)
        self.up_proj = nn.Linear(D, FF, bias=False)
        self.down_proj = nn.Linear(FF, D, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = SelfAttention(), Mlp()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(N_TOKENS, D),
                "layers": nn.ModuleList(Block() for _ in range(LAYERS)),
                "norm": Norm(),
            }
        )
        self.lm_head = nn.Linear(D, N_TOKENS, bias=False)
        half = D // HEADS // 2
        angles = torch.arange(LENGTH)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        angles = torch.cat((angles, angles), dim=-1)
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self, ids):
        x = self.model["embed_tokens"](ids)
        for layer in self.model["layers"]:
            x = layer(x, self.cos, self.sin)
        return self.lm_head(self.model["norm"](x))


def load(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            values = torch.frombuffer(data[start:end], dtype=torch.float32)
            tensors[name] = values.reshape(entry["shape"]).clone()
    return tensors


def tokens(step, shift):
    def token(sequence, i):
        x = (step * 7919 + sequence * 104_729 + i * i * 31 + i * 17) % 65_521
        return x * x % N_TOKENS

    rows = [[token(s, i + shift) for i in range(LENGTH)] for s in range(SEQUENCES)]
    return torch.tensor(rows)


scratch = tempfile.NamedTemporaryFile(suffix=".safetensors")
ours = subprocess.Popen(
    [arguments.binary, scratch.name],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)},
)
assert json.loads(ours.stdout.readline())["ready"]
model = Model()
model.load_state_dict(load(scratch.name))
n_parameters = sum(p.numel() for p in model.parameters())
# The fused update is the faster one on a CPU.
optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True
)


def their_step(step):
    inputs, targets = tokens(step, 0), tokens(step, 1)
    start = time.perf_counter()
    loss = F.cross_entropy(model(inputs).view(-1, N_TOKENS), targets.view(-1))
    value = loss.item()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value, time.perf_counter() - start


def our_step(step):
    ours.stdin.write(f"step {step}\n")
    ours.stdin.flush()
    answer = json.loads(ours.stdout.readline())
    return answer["loss"], answer["seconds"], answer


def cpu_seconds(pid):
    """Processor time of all threads; a fairer measure than the clock on a busy machine, but busy
    waiting counts too."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


times = {"torch": [], "sandhi": []}
cpu = {"torch": [], "sandhi": []}
parts = []
worst = 0.0
for step in range(arguments.warmup + arguments.steps):
    marks = [cpu_seconds(os.getpid())]
    their_loss, theirs = their_step(step)
    marks += [cpu_seconds(os.getpid()), cpu_seconds(ours.pid)]
    our_loss, mine, answer = our_step(step)
    marks.append(cpu_seconds(ours.pid))
    worst = max(worst, abs(their_loss - our_loss))
    if step >= arguments.warmup:
        times["torch"].append(theirs)
        times["sandhi"].append(mine)
        cpu["torch"].append(marks[1] - marks[0])
        cpu["sandhi"].append(marks[3] - marks[2])
        parts.append(answer)
    print(
        f"step {step:3}  torch {theirs:.3f} s, loss {their_loss:.6f}   "
        f"sandhi {mine:.3f} s, loss {our_loss:.6f}",
        file=sys.stderr,
    )
ours.stdin.close()
ours.wait()
assert worst < 2e-3, f"the losses differ by {worst}: not the same work"
medians = {name: statistics.median(values) for name, values in times.items()}
print(
    json.dumps(
        {
            "parameters": n_parameters,
            "tokens": SEQUENCES * LENGTH,
            "threads": arguments.threads,
            "steps": arguments.steps,
            "torch": torch.__version__,
            "torch_s": round(medians["torch"], 4),
            "sandhi_s": round(medians["sandhi"], 4),
            "best_torch_s": round(min(times["torch"]), 4),
            "best_sandhi_s": round(min(times["sandhi"]), 4),
            "torch_cpu_s": round(statistics.median(cpu["torch"]), 3),
            "sandhi_cpu_s": round(statistics.median(cpu["sandhi"]), 3),
            "ratio": round(medians["sandhi"] / medians["torch"], 3),
            "sandhi_parts_s": {
                part: round(statistics.median(p[part] for p in parts), 4)
                for part in ["forward", "backward", "update"]
            },
            "largest_loss_difference": worst,
        },
        indent=2,
    )
)
