"""Alignments that the tests of `sandhi_align::ctc` and `sandhi_align::monotonic` compare with.

    pip install torch==2.11.0 torchaudio==2.11.0 scipy==1.17.1 numpy
    python tools/golden/align.py

Writes crates/sandhi-align/tests/golden/align.json: forced alignments of `torchaudio.functional.forced_align`, with
repeated tokens; the forward-sum loss as `torch.nn.functional.ctc_loss` over a blank of the score -1, with its gradient
by autograd; beta-binomial log-probabilities of SciPy. The seed is fixed. Numbers are rounded to 1/256 before the
references see them.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
import torchaudio

rng = np.random.default_rng(7)


def rounded(*shape):
    return np.round(rng.normal(size=shape) * 2 * 256) / 256


def forced(n_frames, n_tokens, n_symbols):
    target = rng.integers(1, n_symbols, n_tokens)
    logits = rounded(n_frames, n_symbols)
    log_probs = torch.tensor(logits, dtype=torch.float64).log_softmax(-1)
    labels, scores = torchaudio.functional.forced_align(
        log_probs[None], torch.tensor(target[None], dtype=torch.int32), blank=0
    )
    return {
        "n_symbols": n_symbols,
        "target": target.tolist(),
        "logits": logits.ravel().tolist(),
        "labels": labels[0].tolist(),
        "log_prob": float(scores.sum()),
    }


def forward_sum(n_frames, n_tokens):
    scores = rounded(n_frames, n_tokens)
    x = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    log_probs = F.pad(x, (1, 0), value=-1.0).log_softmax(-1)
    target = torch.arange(1, n_tokens + 1)[None]
    loss = F.ctc_loss(log_probs[:, None], target, [n_frames], [n_tokens], blank=0, reduction="sum")
    loss.backward()
    return {
        "n_tokens": n_tokens,
        "scores": scores.ravel().tolist(),
        "loss": loss.item(),
        "gradient": np.round(x.grad.numpy().ravel(), 7).tolist(),
    }


def prior(n_frames, n_tokens, scaling):
    rows = [
        scipy.stats.betabinom(n_tokens - 1, scaling * t, scaling * (n_frames - t + 1)).logpmf(np.arange(n_tokens))
        for t in range(1, n_frames + 1)
    ]
    log_probs = np.round(np.concatenate(rows), 6).tolist()
    return {"n_frames": n_frames, "n_tokens": n_tokens, "scaling": scaling, "log_probs": log_probs}


fixture = {
    "versions": {name: version(name) for name in ("torch", "torchaudio", "scipy", "numpy")},
    "forced": [forced(*shape) for shape in [(9, 3, 4), (30, 12, 5), (70, 20, 3), (120, 35, 8), (40, 1, 6)]],
    "forward_sum": [forward_sum(*shape) for shape in [(5, 3), (12, 12), (40, 9)]],
    "prior": [prior(*settings) for settings in [(10, 4, 1.0), (25, 17, 0.5), (3, 6, 2.0)]],
}
path = Path(__file__).parents[2] / "crates/sandhi-align/tests/golden/align.json"
path.write_text(json.dumps(fixture) + "\n")
