"""Other programs on the problems of `sandhi bench align`: forced alignment by CTC, and monotonic alignment search.

    python3 -m venv venv && venv/bin/pip install numpy torch==2.11.0 torchaudio==2.11.0
    sandhi bench align --python venv/bin/python

Reads FOLDER/problems.json, which lists name, kind ("ctc" or "monotonic") and shape of each problem, and
NAME.scores.npy, for CTC also NAME.target.npy; the blank is symbol 0. Writes what is installed, then a line for every problem and peer:

    {"name": …, "peer": …, "seconds": median, "least": minimum, "score": …, "path": …}

A path is [start, end] of each token for CTC, and the frames of each token for the search. The peers, one thread each:

    torchaudio      `torchaudio.functional.forced_align`
    python          the search as two loops over NumPy's elements, as models publish it
    numpy           the search with a row at a time as arrays
    c               the search as two loops in C, compiled here by `cc -O3 -march=native`

In the clock: from scores in memory to a path in memory; conversion, compilation and imports are not, nor is memory for
the peer in C. A peer that is not installed says so on standard error.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402

try:
    import torch
    import torchaudio

    torch.set_num_threads(1)
except ImportError as problem:
    torch = None
    print(f"torchaudio: {problem}", file=sys.stderr)

# Runs take at least this long together, and are five at least, unless one alone takes longer.
SECONDS = 0.5

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Sums of the best paths to every cell, then the path from the end; durations are counted. */
double search(const float *scores, int32_t n_frames, int32_t n_tokens, float *sums, int64_t *durations) {
    const float none = -1e30f;
    for (int32_t t = 0; t < n_frames; t++) {
        const float *row = scores + (int64_t)t * n_tokens;
        float *now = sums + (int64_t)t * n_tokens;
        const float *past = now - n_tokens;
        int32_t first = n_tokens - (n_frames - t), last = t < n_tokens - 1 ? t : n_tokens - 1;
        if (first < 0) first = 0;
        for (int32_t k = first; k <= last; k++) {
            float stay = t == 0 ? (k == 0 ? 0.0f : none) : k == t ? none : past[k];
            float before = t > 0 && k > 0 ? past[k - 1] : none;
            now[k] = row[k] + (before > stay ? before : stay);
        }
    }
    memset(durations, 0, n_tokens * sizeof(int64_t));
    double score = 0.0;
    int32_t k = n_tokens - 1;
    for (int32_t t = n_frames - 1; t >= 0; t--) {
        durations[k]++;
        score += scores[(int64_t)t * n_tokens + k];
        if (t > 0 && k > 0) {
            const float *past = sums + (int64_t)(t - 1) * n_tokens;
            if (k == t || past[k - 1] > past[k]) k--;
        }
    }
    return score;
}
"""


def timed(run, patience=SECONDS):
    """The median and the least time, and the last result."""
    times, begin = [], time.perf_counter()
    while True:
        start = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - start)
        spent = time.perf_counter() - begin
        if (len(times) >= 5 and spent > patience) or spent > 10 * patience:
            return [sorted(times)[len(times) // 2], min(times)], found


def by_torchaudio(scores, target):
    given, symbols = torch.from_numpy(scores)[None], torch.from_numpy(target)[None]
    seconds, (labels, log_probs) = timed(lambda: torchaudio.functional.forced_align(given, symbols, blank=0))
    spans, last = [], 0
    for frame, label in enumerate(labels[0].tolist()):
        if label != 0 and label == last:
            spans[-1][1] = frame + 1
        elif label != 0:
            spans.append([frame, frame + 1])
        last = label
    return seconds, float(log_probs.double().sum()), spans


def walk(scores, sums):
    """The frames of each token on the best path."""
    n_frames, n_tokens = scores.shape
    durations, token, score = [0] * n_tokens, n_tokens - 1, 0.0
    for frame in range(n_frames - 1, -1, -1):
        durations[token] += 1
        score += float(scores[frame, token])
        if frame > 0 and token > 0 and sums[frame - 1, token - 1] > sums[frame - 1, token]:
            token -= 1
    return score, durations


def by_python(scores):
    n_frames, n_tokens = scores.shape

    def run():
        sums = np.full((n_frames, n_tokens), -np.inf, dtype=np.float32)
        sums[0, 0] = scores[0, 0]
        for frame in range(1, n_frames):
            for token in range(max(0, n_tokens - (n_frames - frame)), min(frame + 1, n_tokens)):
                before = sums[frame - 1, token - 1] if token > 0 else -np.inf
                sums[frame, token] = scores[frame, token] + max(before, sums[frame - 1, token])
        return walk(scores, sums)

    seconds, (score, durations) = timed(run, patience=0.1)
    return seconds, score, durations


def by_numpy(scores):
    n_frames, n_tokens = scores.shape

    def run():
        sums = np.full((n_frames, n_tokens), -np.inf, dtype=np.float32)
        sums[0, 0] = scores[0, 0]
        for frame in range(1, n_frames):
            best = sums[frame - 1].copy()
            np.maximum(best[1:], sums[frame - 1, :-1], out=best[1:])
            np.add(scores[frame], best, out=sums[frame])
        return walk(scores, sums)

    seconds, (score, durations) = timed(run)
    return seconds, score, durations


def compiled():
    """The search in C; None where there is no compiler."""
    folder = tempfile.mkdtemp()
    source, library = os.path.join(folder, "search.c"), os.path.join(folder, "search.so")
    with open(source, "w") as file:
        file.write(SOURCE)
    try:
        subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        print(f"c: {problem}", file=sys.stderr)
        return None
    search = ctypes.CDLL(library).search
    search.restype = ctypes.c_double
    floats = ctypes.POINTER(ctypes.c_float)
    search.argtypes = [floats, ctypes.c_int32, ctypes.c_int32, floats, ctypes.POINTER(ctypes.c_int64)]

    def solve(scores):
        n_frames, n_tokens = scores.shape
        sums, durations = np.empty_like(scores), np.empty(n_tokens, dtype=np.int64)
        kinds = (floats, floats, search.argtypes[4])
        of = [x.ctypes.data_as(kind) for x, kind in zip((scores, sums, durations), kinds)]
        seconds, score = timed(lambda: search(of[0], n_frames, n_tokens, of[1], of[2]))
        return seconds, score, durations.tolist()

    return solve


folder = sys.argv[1]
in_c = compiled()
peers = {
    "ctc": {"torchaudio": by_torchaudio if torch else None},
    "monotonic": {"python": by_python, "numpy": by_numpy, "c": in_c},
}
versions = {"python": sys.version.split()[0], "numpy": np.__version__}
if torch:
    versions |= {"torch": torch.__version__, "torchaudio": torchaudio.__version__}
print(json.dumps({"versions": versions}), flush=True)
with open(os.path.join(folder, "problems.json")) as file:
    problems = json.load(file)
for problem in problems:
    names = ["scores", "target"][: 2 if problem["kind"] == "ctc" else 1]
    arrays = [np.load(os.path.join(folder, f"{problem['name']}.{name}.npy")) for name in names]
    for peer, solve in peers[problem["kind"]].items():
        if solve is not None:
            seconds, score, path = solve(*arrays)
            line = {"name": problem["name"], "peer": peer, "score": score, "path": path}
            line |= dict(zip(("seconds", "least"), seconds))
            print(json.dumps(line), flush=True)
