"""Writes crates/sandhi-nn/tests/golden/connectors.safetensors: what connectors give, by published layers in PyTorch.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors
    venv/bin/python tools/golden/connectors.py

The Q-Formers are `transformers.Blip2QFormerModel`; stacks and convolutions are written down here as their papers and
`torch.nn` have them. Every utterance goes through alone. For each connector NAME, all in f32,

    NAME/frames [n, 6]    NAME/lengths, n_vectors [4]    NAME/vectors, loss_weights [n_vectors, 10]
    NAME/weight/PARAMETER           under our names, linear layers as [d_out, d_in]
    NAME/gradient/PARAMETER         of sum(vectors * loss_weights)
    NAME/gradient_of_frames

The seed is fixed; all parameters are drawn at random, norms and biases too.
"""

from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel

OUT = Path(__file__).resolve().parents[2] / "crates/sandhi-nn/tests/golden/connectors.safetensors"
D_ENCODER, D_MODEL = 6, 10
LENGTHS = [7, 1, 4, 9]


def stacked(frames, k, drop=False):
    n, d = frames.shape
    frames = frames[: n // k * k] if drop else F.pad(frames, (0, 0, 0, -n % k))
    return frames.reshape(-1, k * d)


class StackMlp(nn.Module):
    def __init__(self, drop=False):
        super().__init__()
        self.drop = drop
        self.linear1, self.linear2 = nn.Linear(3 * D_ENCODER, 7), nn.Linear(7, D_MODEL)

    def forward(self, frames):
        return self.linear2(torch.relu(self.linear1(stacked(frames, 3, self.drop))))


class StackSwiglu(nn.Module):
    def __init__(self, post):
        super().__init__()
        self.ln_pre = nn.RMSNorm(4 * D_ENCODER, eps=1e-6)
        self.linear_1, self.linear_2 = nn.Linear(4 * D_ENCODER, 14, bias=False), nn.Linear(7, D_MODEL, bias=False)
        if post:
            self.ln_post = nn.RMSNorm(D_MODEL, eps=1e-6)
        else:
            self.ln_mid = nn.RMSNorm(7, eps=1e-6)

    def forward(self, frames):
        value, gate = self.linear_1(self.ln_pre(stacked(frames, 4))).split(7, dim=-1)
        x = value * F.silu(gate)
        if hasattr(self, "ln_mid"):
            return self.linear_2(self.ln_mid(x))
        return self.ln_post(self.linear_2(x))


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(D_ENCODER, 2 * d_out, 5, stride=2, padding=2) for d_out in (D_ENCODER, D_MODEL)
        )
        self.adapter = nn.ModuleDict({
            "fc1": nn.Linear(D_MODEL, 4, bias=False), "fc2": nn.Linear(4, D_MODEL, bias=False),
        })
        self.norm = nn.LayerNorm(D_MODEL)

    def forward(self, frames):
        x = frames.T[None]
        for layer in self.conv_layers:
            x = F.glu(layer(x), dim=1)
        x = x[0].T
        return self.norm(x + self.adapter["fc2"](F.gelu(self.adapter["fc1"](x))))


class QFormer(nn.Module):
    def __init__(self, n_queries, n_layers, frequency, window=None):
        super().__init__()
        config = Blip2QFormerConfig(
            hidden_size=8, num_hidden_layers=n_layers, num_attention_heads=2, intermediate_size=12,
            encoder_hidden_size=D_ENCODER, cross_attention_frequency=frequency, attn_implementation="eager",
        )
        self.window = window
        self.queries = nn.Parameter(torch.zeros(n_queries, 8))
        self.former = Blip2QFormerModel(config).eval()
        self.output = nn.Linear(8, D_MODEL)
        if window is None:
            self.output_norm = nn.LayerNorm(D_MODEL)
        else:
            self.input_norm = nn.LayerNorm(D_ENCODER)

    def forward(self, frames):
        if self.window is None:
            return self.output_norm(self.output(self.ask(frames)))
        return self.output(torch.cat([self.ask(part) for part in self.input_norm(frames).split(self.window)]))

    def ask(self, frames):
        return self.former(query_embeds=self.queries[None], encoder_hidden_states=frames[None]).last_hidden_state[0]


RENAMED = [
    ("former.layernorm.", "query_norm."),
    ("former.encoder.layer.", "layers."),
    (".crossattention.", ".cross_attn."),
    (".attention.attention.", ".self_attn."),
    (".attention.output.", ".self_attn."),
    (".cross_attn.attention.", ".cross_attn."),
    (".cross_attn.output.", ".cross_attn."),
    (".intermediate_query.dense.", ".mlp.fc1."),
    (".output_query.dense.", ".mlp.fc2."),
    (".output_query.LayerNorm.", ".layer_norm."),
    (".LayerNorm.", ".layer_norm."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".dense.", ".o_proj."),
]


def our_name(name):
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name


def as_ours(tensor):
    """A convolution's [d_out, d_in, kernel] as [d_out, kernel * d_in], the channels of the first tap first."""
    return tensor.permute(0, 2, 1).flatten(1) if tensor.dim() == 3 else tensor


def make(name, module):
    torch.manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
            if parameter.dim() == 1 and path.endswith("weight"):
                parameter.add_(1.0)
    frames = torch.randn(sum(LENGTHS), D_ENCODER, requires_grad=True)
    parts = [module(part) for part in frames.split(LENGTHS)]
    vectors = torch.cat(parts)
    loss_weights = torch.randn_like(vectors)
    (vectors * loss_weights).sum().backward()
    tensors = {
        "frames": frames,
        "lengths": torch.tensor(LENGTHS, dtype=torch.float32),
        "n_vectors": torch.tensor([len(part) for part in parts], dtype=torch.float32),
        "vectors": vectors,
        "loss_weights": loss_weights,
        "gradient_of_frames": frames.grad,
    }
    for path, parameter in module.named_parameters():
        assert parameter.grad is not None, (name, path)
        tensors[f"weight/{our_name(path)}"] = as_ours(parameter)
        tensors[f"gradient/{our_name(path)}"] = as_ours(parameter.grad)
    return {f"{name}/{key}": tensor.detach().clone().contiguous() for key, tensor in tensors.items()}


CONNECTORS = {
    "stack_mlp": StackMlp(),
    "stack_mlp_drop": StackMlp(drop=True),
    "stack_swiglu_mid": StackSwiglu(post=False),
    "stack_swiglu_post": StackSwiglu(post=True),
    "conv": Conv(),
    "q_former": QFormer(n_queries=5, n_layers=3, frequency=2),
    "window_q_former": QFormer(n_queries=2, n_layers=2, frequency=1, window=4),
    "window_q_former_one": QFormer(n_queries=1, n_layers=2, frequency=1, window=3),
}

OUT.parent.mkdir(parents=True, exist_ok=True)
save_file(
    {key: tensor for name, module in CONNECTORS.items() for key, tensor in make(name, module).items()},
    OUT,
    {"made_by": "tools/golden/connectors.py", "torch": torch.__version__, "transformers": transformers.__version__},
)
