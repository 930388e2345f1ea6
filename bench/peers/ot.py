"""The other side of `sandhi bench ot`: POT, geomloss and unrolled PyTorch, asked over standard input.

    python3 -m venv venv && venv/bin/pip install numpy pot==0.9.7.post1 torch==2.11.0 geomloss==0.3.1
    sandhi bench ot --python venv/bin/python

One JSON object a line in, one out:

    {"do": "versions"}                            what is installed
    {"do": "load", "path": …}                     problems: u32 count, u32 shapes, f32 costs; masses are uniform
    {"do": "prepare", "what": …, "epsilon": …}    finds the fastest way to the tolerance; keeps it
        exact     `ot.emd`, one problem after the other, or in threads
        entropic  POT's Sinkhorns, one problem after the other, or in threads
        batch     `ot.batch`, problems padded with masses of 1e-13, as it takes no zeros; NumPy or PyTorch
        geomloss  `geomloss.ot.solve_batch`, padded in the same way
        gradient  of <P, C>: autograd through as many sweeps in the log domain as the tolerance takes, one after the
                  other or padded
        kernel-gradient   the same through sweeps of the kernel exp(-C / epsilon), which vanishes for small epsilon
    {"do": "run", "repeats": n}                   mean seconds of n times what was prepared

The tolerance is on the marginal error: absolute, summed over rows and columns, the worst problem's. Every library may
run in f32 and in f64, whichever is faster. In the clock: from costs in memory to plans in memory; conversion,
padding and imports are not.
"""

import json
import os
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

# This file may have the name of POT's module, and its folder comes first where modules are looked for.
sys.path.pop(0)
warnings.simplefilter("ignore")
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import numpy as np  # noqa: E402
import ot  # noqa: E402
import ot.batch  # noqa: E402
import torch  # noqa: E402

try:
    import geomloss
    import geomloss.ot
except ImportError:
    geomloss = None

TOLERANCE = 1e-6
# A way that takes longer than this is not tried with tighter thresholds, and one this much slower than the best is given up.
PATIENCE_S, GIVE_UP = 60.0, 2.0
n_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
torch.set_num_threads(n_threads)


def load(path):
    words = np.fromfile(path, "<u4")
    n = int(words[0])
    shapes = words[1 : 1 + 2 * n].reshape(n, 2).astype(int)
    values, at, problems = words[1 + 2 * n :].view("<f4"), 0, []
    for rows, columns in shapes:
        cost = values[at : at + rows * columns].reshape(rows, columns)
        problems.append((np.full(rows, 1 / rows), np.full(columns, 1 / columns), cost.astype(np.float64)))
        at += rows * columns
    return problems


def error(plan):
    plan = np.asarray(plan, dtype=np.float64)
    n, m = plan.shape
    return abs(plan.sum(0) - 1 / m).sum() + abs(plan.sum(1) - 1 / n).sum()


def worst(problems, plans):
    """The marginal error of the worst problem; plans may be padded."""
    return max(error(plan[: cost.shape[0], : cost.shape[1]]) for (_, _, cost), plan in zip(problems, plans))


def one_by_one(solve, problems):
    return lambda: [solve(*problem) for problem in problems]


def in_threads(solve, problems):
    pool = ThreadPoolExecutor(n_threads)
    return lambda: list(pool.map(lambda problem: solve(*problem), problems))


def loops(solve, problems):
    """The ways to solve problems one at a time."""
    yield "", one_by_one(solve, problems)
    if n_threads > 1 and len(problems) > 1:
        yield " in threads", in_threads(solve, problems)


def cast(problems, dtype):
    return [tuple(x.astype(dtype) for x in problem) for problem in problems]


def padded(problems, dtype, library):
    n_most, m_most = (max(cost.shape[axis] for _, _, cost in problems) for axis in (0, 1))
    cost = np.ones((len(problems), n_most, m_most))
    a, b = np.full((len(problems), n_most), 1e-13), np.full((len(problems), m_most), 1e-13)
    for i, (of_rows, of_columns, matrix) in enumerate(problems):
        n, m = matrix.shape
        cost[i, :n, :m], a[i, :n], b[i, :m] = matrix, of_rows, of_columns
    arrays = [x.astype(dtype) for x in (cost, a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True))]
    return [torch.from_numpy(x) for x in arrays] if library == "torch" else arrays


def timed(run):
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


class Best:
    """The fastest way that reaches the tolerance; of those that do not, the nearest."""

    def __init__(self, problems):
        self.problems, self.seconds, self.name, self.run, self.error = problems, np.inf, None, None, np.inf

    def offer(self, name, run):
        """Whether this way reaches the tolerance; and whether it is too slow to go on with."""
        try:
            seconds, plans = timed(run)
            found = worst(self.problems, plans)
        except (ArithmeticError, RuntimeError, ValueError) as problem:
            print(f"{name}: {problem}", file=sys.stderr)
            return False, True
        if np.isnan(found):
            return False, True
        reaches, was_reached = found <= TOLERANCE, self.error <= TOLERANCE
        if reaches and seconds < GIVE_UP * self.seconds:
            seconds = min([seconds] + [timed(run)[0] for _ in range(2 if seconds < 1 else 0)])
        if (reaches and (not was_reached or seconds < self.seconds)) or (not was_reached and found < self.error):
            self.seconds, self.name, self.run, self.error = seconds, name, run, found
        return reaches, seconds > PATIENCE_S or (was_reached and seconds > GIVE_UP * self.seconds)

    def first_of(self, ways):
        """Offers ways, ever tighter ones, until one reaches the tolerance or takes too long."""
        for name, run in ways:
            reaches, is_slow = self.offer(name, run)
            if reaches or is_slow:
                break


def exact(best, problems, epsilon):
    for suffix, run in loops(ot.emd, problems):
        best.offer("ot.emd" + suffix, run)


def entropic(best, problems, epsilon):
    def solver(method, threshold):
        return lambda a, b, cost: ot.sinkhorn(
            a, b, cost, epsilon, method=method, stopThr=threshold, numItermax=50_000, warn=False
        )

    for dtype in [np.float64, np.float32]:
        given = cast(problems, dtype)
        for method in ["sinkhorn", "sinkhorn_stabilized", "sinkhorn_log"]:
            # POT measures the error of one side by its Euclidean norm.
            thresholds = [1e-6, 2e-7, 5e-8]
            for way in range(2 if n_threads > 1 and len(problems) > 1 else 1):
                ways = []
                for threshold in thresholds:
                    suffix, run = list(loops(solver(method, threshold), given))[way]
                    ways.append((f"{method} {dtype.__name__}{suffix}", run))
                best.first_of(ways)


def batch(best, problems, epsilon):
    for library in ["torch", "numpy"]:
        for dtype in [np.float64, np.float32]:
            cost, a, b = padded(problems, dtype, library)
            for method in ["sinkhorn", "log_sinkhorn"]:

                def way(tolerance, cost=cost, a=a, b=b, method=method):
                    def run():
                        found = ot.batch.solve_batch(
                            cost, epsilon, a, b, max_iter=5_000, tol=tolerance, method=method, grad="detach"
                        )
                        return found.plan

                    return f"{method} {library} {dtype.__name__}", run

                best.first_of(way(tolerance) for tolerance in [1e-6, 1e-7, 1e-8, 1e-9])


def by_geomloss(best, problems, epsilon):
    for dtype in [np.float32, np.float64]:
        cost, a, b = padded(problems, dtype, "torch")

        def way(n, cost=cost, a=a, b=b, dtype=dtype):
            return (
                f"solve_batch {dtype.__name__}, {n} iterations",
                lambda: geomloss.ot.solve_batch(cost, a=a, b=b, reg=epsilon, max_iter=n).plan,
            )

        best.first_of(way(n) for n in [10, 30, 100, 300])


def unrolled(cost, a, b, epsilon, n_sweeps, in_logs):
    """The plans after so many sweeps; costs may have an axis of problems before theirs."""
    if in_logs:
        log_a, log_b, g = a.log(), b.log(), torch.zeros_like(b)
        for _ in range(n_sweeps):
            f = epsilon * (log_a - torch.logsumexp((g[..., None, :] - cost) / epsilon, -1))
            g = epsilon * (log_b - torch.logsumexp((f[..., :, None] - cost) / epsilon, -2))
        return ((f[..., :, None] + g[..., None, :] - cost) / epsilon).exp()
    kernel, v = (-cost / epsilon).exp(), torch.ones_like(b)
    turned = kernel.mT
    for _ in range(n_sweeps):
        u = a / (kernel @ v[..., None])[..., 0]
        v = b / (turned @ u[..., None])[..., 0]
    return u[..., :, None] * kernel * v[..., None, :]


def gradient(best, problems, epsilon, in_logs=True):
    def backward(given, n_sweeps, in_logs):
        plans = []
        for cost, a, b in given:
            cost = cost.clone().requires_grad_()
            plan = unrolled(cost, a, b, epsilon, n_sweeps, in_logs)
            (plan * cost).sum().backward()
            plans.append(plan.detach())
        return plans

    def n_sweeps(given, in_logs):
        """Sweeps after which the worst problem has reached the tolerance."""
        with torch.no_grad():
            for n in (5 * 1.25**i for i in range(30)):
                plans = [plan for one in given for plan in many(unrolled(*one, epsilon, int(n), in_logs))]
                if worst(problems, plans) <= TOLERANCE:
                    return int(n)
        return None

    def many(plans):
        return plans if plans.ndim == 3 else [plans]

    for dtype in [torch.float64, torch.float32]:
        single = [tuple(torch.tensor(x, dtype=dtype) for x in (cost, a, b)) for a, b, cost in problems]
        whole = [tuple(x.to(dtype) for x in padded(problems, np.float64, "torch"))]
        n = n_sweeps(single, in_logs)
        if n is None:
            continue
        for name, given in [("", single), (" padded", whole)][: 2 if len(problems) > 1 else 1]:

            def run(given=given, n=n):
                return [plan for plans in backward(given, n, in_logs) for plan in many(plans)]

            best.offer(f"autograd, {n} sweeps, {str(dtype)[6:]}{name}", run)


def kernel_gradient(best, problems, epsilon):
    gradient(best, problems, epsilon, in_logs=False)


WAYS = {
    "exact": exact,
    "entropic": entropic,
    "batch": batch,
    "geomloss": by_geomloss,
    "gradient": gradient,
    "kernel-gradient": kernel_gradient,
}
problems, best = [], None
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "versions":
        modules = {"numpy": np, "pot": ot, "torch": torch, "geomloss": geomloss}
        answer = {name: getattr(module, "__version__", None) for name, module in modules.items()}
        if geomloss is not None and answer["geomloss"] is None:
            answer["geomloss"] = "installed"
    elif asked["do"] == "load":
        problems = load(asked["path"])
        answer = {"problems": len(problems)}
    elif asked["do"] == "prepare":
        best = Best(problems)
        WAYS[asked["what"]](best, problems, asked["epsilon"])
        answer = {"name": best.name}
        if best.run is not None:
            plans = best.run()
            values = [
                float((np.asarray(plan, dtype=np.float64)[: cost.shape[0], : cost.shape[1]] * cost).sum())
                for plan, (_, _, cost) in zip(plans, problems)
            ]
            answer |= {"seconds": best.seconds, "marginal_error": best.error, "values": values}
    else:
        seconds, _ = timed(lambda: [best.run() for _ in range(asked["repeats"])])
        answer = {"seconds": seconds / asked["repeats"]}
    answers.write(json.dumps(answer) + "\n")
