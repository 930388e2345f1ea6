"""Log-mel and fbank: transformers' and torchaudio's extractors against ours, on the same sound.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 torchaudio==2.11.0 transformers
    venv/bin/python bench/features.py [--threads 2] [--rounds 15] [--clock wall|cpu] [--json FILE]

Builds the example `bench_features` in release mode and keeps it running beside the peers. In every round each
contender computes all utterances once, one after the other, so that whatever else the machine does hits all alike;
reported are medians and, for the ratio, the median of the rounds' ratios.

In the clock: from f32 samples in memory to f32 features in memory, once over all utterances. Not in the clock:
imports, reading, building windows and filters, passing data between processes. Threads: the same number for all.
With `--clock cpu` the CPU time of all threads is compared instead of the time on the wall, for machines that others
use as well; threads that wait by spinning count in full, so take one thread, and our side includes taking the means.
Before timing, the mean and the mean square of all features must agree, so that everyone does the same work.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
ROOT = Path(__file__).resolve().parents[1]
RATE = 16_000


class Ours:
    """The example, which computes everything once for each line it reads."""

    def __init__(self, program, samples, n_utterances, kind, n_mels, threads):
        command = [program, samples, str(n_utterances), kind, str(n_mels)]
        environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def cpu_seconds(self):
        """What all threads have computed so far (Linux)."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def __call__(self, clock):
        before = self.cpu_seconds() if clock == "cpu" else 0.0
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 3:
            raise SystemExit("bench_features stopped; its message is above")
        seconds, mean, square = map(float, answer)
        if clock == "cpu":
            seconds = self.cpu_seconds() - before
        return seconds, (mean, square)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--utterances", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an utterance")
    parser.add_argument("--program", type=Path, help="a built bench_features; without it cargo builds it")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    options = parser.parse_args()

    import numpy as np
    import torch
    import torchaudio
    import transformers

    torch.set_num_threads(options.threads)
    program = options.program
    if program is None:
        build = ["cargo", "build", "--quiet", "--release", "-p", "sandhi-data", "--example", "bench_features"]
        subprocess.run(build, cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        program = target / "release/examples/bench_features"

    rng = np.random.default_rng(7)
    n_samples = int(options.seconds * RATE)
    # Noise whose level rises and falls four times a second, as that of syllables does.
    level = 0.5 + 0.499 * np.sin(np.arange(n_samples) * 2 * np.pi * 4 / RATE)
    sound = (0.1 * level * rng.standard_normal((options.utterances, n_samples))).astype(np.float32)
    tensor = torch.from_numpy(sound)
    folder = tempfile.TemporaryDirectory()
    samples = Path(folder.name) / "samples.f32"
    sound.tofile(samples)

    def hf(n_mels, padding):
        extract = transformers.WhisperFeatureExtractor(feature_size=n_mels)
        utterances = list(sound)
        return lambda: extract(utterances, sampling_rate=RATE, padding=padding, return_tensors="np")["input_features"]

    def hf_one_by_one(n_mels):
        extract = transformers.WhisperFeatureExtractor(feature_size=n_mels)

        def one(utterance):
            return extract(utterance, sampling_rate=RATE, padding="do_not_pad", return_tensors="np")["input_features"]

        return lambda: [one(utterance) for utterance in sound]

    def torchaudio_mel(n_mels):
        mel = torchaudio.transforms.MelSpectrogram(
            RATE, n_fft=400, hop_length=160, n_mels=n_mels, norm="slaney", mel_scale="slaney", power=2.0
        )

        def run():
            log = torch.clamp(mel(tensor)[..., :-1], min=1e-10).log10()
            return (torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0

        return run

    def torchaudio_fbank(n_mels):
        return lambda: [torchaudio.compliance.kaldi.fbank(u[None], num_mel_bins=n_mels) for u in tensor]

    def timed(function):
        now = time.process_time if options.clock == "cpu" else time.perf_counter
        start = now()
        features = function()
        seconds = now() - start
        values = np.concatenate([np.asarray(f, dtype=np.float64).ravel() for f in features])
        return seconds, (float(values.mean()), float((values**2).mean()))

    hf_batch, hf_single, ta = "transformers, one batch", "transformers, one by one", "torchaudio MelSpectrogram"
    cases = [
        ("log-mel 80", "whisper", 80, {
            hf_batch: hf(80, "longest"), hf_single: hf_one_by_one(80), ta: torchaudio_mel(80),
        }),
        ("log-mel 128", "whisper", 128, {hf_batch: hf(128, "longest"), ta: torchaudio_mel(128)}),
        ("log-mel 80, padded to 30 s", "whisper_padded", 80, {hf_batch: hf(80, "max_length")}),
        ("fbank 80", "fbank", 80, {"torchaudio kaldi.fbank": torchaudio_fbank(80)}),
    ]
    print(f"{options.utterances} utterances of {options.seconds:g} s, {options.threads} threads, {options.rounds} rounds, {options.clock} time")
    print(f"transformers {transformers.__version__}, torchaudio {torchaudio.__version__}, torch {torch.__version__}, "
          f"{platform.machine()}, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'work':28} {'peer':28} {'peer ms':>9} {'ours ms':>9} {'ratio':>7}")
    report = []
    for name, kind, n_mels, peers in cases:
        ours = Ours(program, samples, options.utterances, kind, n_mels, options.threads)
        for peer, function in peers.items():  # warms up, too
            expected, found = timed(function)[1], ours(options.clock)[1]
            if not np.allclose(expected, found, rtol=2e-4, atol=2e-4):
                raise SystemExit(f"{name}: {peer} computes {expected}, we compute {found}: not the same work")
        times, own = {peer: [] for peer in peers}, []
        for _ in range(options.rounds):
            own.append(ours(options.clock)[0])
            for peer, function in peers.items():
                times[peer].append(timed(function)[0])
        ours.close()
        for peer, seconds in times.items():
            row = {
                "work": name,
                "peer": peer,
                "peer_ms": 1e3 * statistics.median(seconds),
                "ours_ms": 1e3 * statistics.median(own),
                "ratio": statistics.median(p / o for p, o in zip(seconds, own)),
            }
            report.append(row)
            print(f"{name:28} {peer:28} {row['peer_ms']:9.1f} {row['ours_ms']:9.1f} {row['ratio']:6.1f}x", flush=True)
    if options.json:
        numbers = {"clock": options.clock, "threads": options.threads, "rounds": options.rounds, "rows": report}
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    folder.cleanup()


if __name__ == "__main__":
    main()
