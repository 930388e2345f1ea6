"""The other side of `sandhi bench connectors`: connectors in PyTorch, asked over standard input.

    python3 -m venv venv && venv/bin/pip install numpy torch==2.11.0
    sandhi bench connectors --python venv/bin/python

One JSON object a line in, one out:

    {"do": "versions"}     what is installed
    {"do": "load", "folder": …, "config": …, "lengths": …}
                           frames, weights, and the vectors and gradients that came of them, as FOLDER/*.npy; answers with
                           the largest difference of a vector's value, as a share of the largest value, that of a parameter's
                           gradients, as a share of their norm, and the fastest way of running it
    {"do": "run"}          seconds of a forward and a backward pass of what was loaded, that way

The connectors are written from their papers: stacked frames and two linear layers (arXiv 2402.08846), and queries that
ask a window of frames each (arXiv 2310.13289) through BERT's layers. Utterances are padded to the longest, with masks
where it matters. Ways are eager PyTorch and `torch.compile`, where a compiler is installed; attention is
`scaled_dot_product_attention`. In the clock: from padded frames in memory to the gradients of all parameters;
padding, imports and compilation are not.
"""

import json
import os
import sys
import time
from pathlib import Path

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


class StackMlp(nn.Module):
    """Groups of frames side by side, linear, ReLU, linear; the last group of an utterance is filled with zeros."""

    def __init__(self, config, d_encoder, d_model):
        super().__init__()
        self.reduction = config["reduction"]
        self.linear1 = nn.Linear(self.reduction * d_encoder, config["d_hidden"])
        self.linear2 = nn.Linear(config["d_hidden"], d_model)

    def prepare(self, frames, lengths):
        """Zeros up to whole groups of the longest."""
        fill = -frames.shape[1] % self.reduction
        frames = F.pad(frames, (0, 0, 0, fill))
        return frames, None, -(-lengths // self.reduction)

    def forward(self, frames, mask):
        n, length, width = frames.shape
        groups = frames.view(n, length // self.reduction, self.reduction * width)
        return self.linear2(F.relu(self.linear1(groups)))


class Attention(nn.Module):
    """Multi-head attention with a residual and a norm behind it."""

    def __init__(self, d, d_memory, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.q_proj, self.o_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.k_proj, self.v_proj = nn.Linear(d_memory, d), nn.Linear(d_memory, d)
        self.layer_norm = nn.LayerNorm(d, eps=1e-12)

    def forward(self, x, memory, mask=None):
        def heads(y):
            return y.view(*y.shape[:2], self.n_heads, -1).transpose(1, 2)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(memory)), heads(self.v_proj(memory))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.layer_norm(x + self.o_proj(y.transpose(1, 2).reshape(x.shape)))


class Mlp(nn.Module):
    def __init__(self, d, d_ff):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, d_ff), nn.Linear(d_ff, d)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, config, d_encoder):
        super().__init__()
        d, n_heads = config["d_hidden"], config["n_heads"]
        self.self_attn = Attention(d, d, n_heads)
        self.cross_attn = Attention(d, d_encoder, n_heads)
        self.mlp = Mlp(d, config["d_ff"])
        self.layer_norm = nn.LayerNorm(d, eps=1e-12)

    def forward(self, x, frames, mask):
        x = self.cross_attn(self.self_attn(x, x), frames, mask)
        return self.layer_norm(x + self.mlp(x))


class WindowQFormer(nn.Module):
    """Queries for every window; windows stand in the batch beside one another, those of padding left out."""

    def __init__(self, config, d_encoder, d_model):
        super().__init__()
        d = config["d_hidden"]
        self.window, self.n_queries = config["window"], config["n_queries"]
        self.input_norm = nn.LayerNorm(d_encoder)
        self.queries = nn.Parameter(torch.zeros(self.n_queries, d))
        self.query_norm = nn.LayerNorm(d, eps=1e-12)
        self.layers = nn.ModuleList(Layer(config, d_encoder) for _ in range(config["n_layers"]))
        self.output = nn.Linear(d, d_model)

    def prepare(self, frames, lengths):
        frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % self.window))
        heard = torch.arange(frames.shape[1])[None] < lengths[:, None]
        windows = frames.view(-1, self.window, frames.shape[2])
        heard = heard.view(-1, self.window)
        some = heard.any(1)
        mask = heard[some][:, None, None, :]
        return windows[some], mask, torch.tensor([int(some.sum()) * self.n_queries])

    def forward(self, windows, mask):
        frames = self.input_norm(windows)
        x = self.query_norm(self.queries).expand(len(windows), -1, -1)
        for layer in self.layers:
            x = layer(x, frames, mask)
        return self.output(x).reshape(1, -1, self.output.out_features)


KINDS = {"stack_mlp": StackMlp, "window_q_former": WindowQFormer}


def difference(ours, theirs):
    """As a share of the largest value."""
    return float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-12))


class Work:
    """A connector, its padded input, and a way of running it."""

    def __init__(self, folder, config, lengths):
        def read(name):
            return torch.from_numpy(np.load(folder / f"{name}.npy"))

        rows, self.expected = read("frames"), read("vectors")
        lengths = torch.tensor(lengths)
        frames = torch.nn.utils.rnn.pad_sequence(list(rows.split(lengths.tolist())), batch_first=True)
        self.model = KINDS[config["kind"]](config, rows.shape[1], self.expected.shape[1])
        self.folder, self.names = folder, [name for name, _ in self.model.named_parameters()]
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.turned(name, read(f"weight.{name}")))
        self.input, self.mask, n_vectors = self.model.prepare(frames, lengths)
        longest = int(n_vectors.max())
        # Which vectors are of no padding.
        self.valid = torch.arange(longest)[None] < n_vectors[:, None]
        self.is_whole = bool(self.valid.all())
        self.weights = self.valid[..., None].float()
        self.forward = self.model

    @staticmethod
    def turned(name, tensor):
        """Matrices of linear layers lie as [in, out] there."""
        return tensor.T if tensor.dim() == 2 and name.endswith(".weight") else tensor

    def run(self):
        for parameter in self.model.parameters():
            parameter.grad = None
        vectors = self.forward(self.input, self.mask)
        counted = vectors if self.is_whole else vectors * self.weights
        (0.5 * counted.square().sum()).backward()
        return vectors

    def seconds(self):
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def differences(self):
        vectors = self.run()[self.valid].detach().numpy()
        pairs = []
        for name, parameter in self.model.named_parameters():
            ours = self.turned(name, torch.from_numpy(np.load(self.folder / f"gradient.{name}.npy")))
            pairs.append((ours.numpy(), parameter.grad.numpy()))
        # Rounding opens a ReLU near zero on one side alone, so norms are compared. Where there is nothing to choose from,
        # queries and keys have no gradient but rounding.
        norm = np.linalg.norm
        least = 0.01 * max(norm(ours) for ours, _ in pairs)
        worst = max(float(norm(ours - theirs) / max(norm(ours), least)) for ours, theirs in pairs)
        return difference(self.expected.numpy(), vectors), worst

    def choose(self):
        """The fastest way."""
        ways = [("eager", self.model)]
        try:
            compiled = torch.compile(self.model)
            self.forward = compiled
            self.run()
            ways.append(("torch.compile", compiled))
        except Exception as problem:
            print(f"torch.compile: {type(problem).__name__}", file=sys.stderr)
        times = {}
        for name, self.forward in ways:
            self.run()
            times[name] = min(self.seconds() for _ in range(3))
        best = min(times, key=times.get)
        self.forward = dict(ways)[best]
        return best


work = None
for line in sys.stdin:
    question = json.loads(line)
    if question["do"] == "versions":
        answer = {"torch": torch.__version__, "numpy": np.__version__, "threads": torch.get_num_threads()}
    elif question["do"] == "load":
        work = Work(Path(question["folder"]), question["config"], question["lengths"])
        way = work.choose()
        vectors, gradients = work.differences()
        answer = {"way": way, "vectors": vectors, "gradients": gradients}
    else:
        answer = work.seconds()
    print(json.dumps(answer), file=answers)
