"""Optimal transport that the tests of `sandhi_align::transport` compare with.

    pip install pot==0.9.7.post1 numpy
    python tools/golden/transport.py

Writes crates/sandhi-align/tests/golden/transport.json: random cosine and squared Euclidean costs of many shapes, with
uniform and with other masses, the exact value of `ot.emd`, and what log-domain Sinkhorn, balanced and with a KL
penalty on the columns, converges to. The seed is fixed. Numbers are rounded before the references see them.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import ot

rng = np.random.default_rng(20)


def cosine(n, m, d):
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    x[: n // 2] += y[rng.integers(0, m, n // 2)]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return 1 - x @ y.T


def squares(n, m, d):
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    return ((x[:, None] - y[None]) ** 2).sum(-1) / d


def masses(n, kind):
    if kind == "uniform":
        return np.full(n, 1 / n)
    if kind == "counts":
        counts = rng.integers(1, 4, n)
        return counts / counts.sum()
    values = rng.exponential(size=n)
    if kind == "zeros":
        values[:: 3] = 0.0
    return values / values.sum()


def entropic(a, b, cost, epsilon):
    plan = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=2_000_000)
    error = abs(plan.sum(0) - b).sum() + abs(plan.sum(1) - a).sum()
    assert error < 1e-9, (cost.shape, epsilon, error)
    return plan


def unbalanced(a, b, cost, epsilon, tau):
    return ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, epsilon, (float("inf"), tau), reg_type="kl", stopThr=1e-14, numItermax=200_000
    )


CASES = [
    (1, 1, cosine, "uniform", "uniform"),
    (1, 4, cosine, "uniform", "given"),
    (6, 1, cosine, "given", "uniform"),
    (3, 5, cosine, "uniform", "uniform"),
    (13, 5, cosine, "uniform", "uniform"),
    (12, 4, squares, "uniform", "counts"),
    (5, 13, squares, "given", "given"),
    (20, 20, cosine, "uniform", "uniform"),
    (24, 7, squares, "zeros", "zeros"),
    (50, 8, cosine, "uniform", "uniform"),
    (40, 12, cosine, "given", "counts"),
    (8, 40, cosine, "uniform", "given"),
    (75, 25, cosine, "uniform", "uniform"),
    (64, 30, squares, "given", "given"),
]

cases = []
for n, m, metric, kind_a, kind_b in CASES:
    cost = np.round(metric(n, m, 8), 6)
    a, b = masses(n, kind_a), masses(m, kind_b)
    rounded = [float(f"{x:.12g}") for x in a], [float(f"{x:.12g}") for x in b]
    a, b = (np.array(side) for side in rounded)
    a, b = a / a.sum(), b / b.sum()
    plan = ot.emd(a, b, cost, numItermax=10_000_000)
    case = {
        "shape": [n, m],
        "a": a.tolist(),
        "b": b.tolist(),
        "uniform": [kind_a == "uniform", kind_b == "uniform"],
        "cost": cost.ravel().tolist(),
        "exact": float((plan * cost).sum()),
        "entropic": [],
        "unbalanced": [],
    }
    # POT's logarithms refuse masses of zero; those lines carry nothing.
    rows, columns = a > 0, b > 0
    a, b, cost = a[rows], b[columns], cost[np.ix_(rows, columns)]
    for epsilon in (0.5, 0.1, 0.05, 0.02):
        plan = entropic(a, b, cost, epsilon)
        case["entropic"].append([epsilon, float((plan * cost).sum()), float((plan**2).sum())])
    for epsilon, tau in ((0.1, 0.05), (0.05, 1.0)):
        plan = unbalanced(a, b, cost, epsilon, tau)
        assert abs(plan.sum(1) - a).sum() < 1e-9, (n, m, epsilon, tau)
        case["unbalanced"].append([epsilon, tau, float((plan * cost).sum()), float((plan**2).sum())])
    cases.append(case)

fixture = {"versions": {name: version(name) for name in ("pot", "numpy")}, "cases": cases}
path = Path(__file__).parents[2] / "crates/sandhi-align/tests/golden/transport.json"
path.write_text(json.dumps(fixture) + "\n")
