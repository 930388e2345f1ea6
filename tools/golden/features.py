"""Writes crates/sandhi-data/tests/golden/features/: what the reference extractors give on small inputs.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 torchaudio==2.11.0 transformers soundfile
    venv/bin/python tools/golden/features.py [--data DIR]

`synthetic.safetensors` holds inputs and features: `NAME.in`, `NAME.whisper80`, `NAME.whisper128` (natural length),
`NAME.padded80` (30 s, only the frames listed in `padded.frames`), `NAME.fbank*`; features are [n_frames, n_mels].
`clips.safetensors` holds a few frames of real recordings, found under DIR (fixtures/...; not in this
repository): `PATH.whisper80`, `PATH.whisper128`, `PATH.fbank80`, at the frames listed in `PATH.frames`; and the filters
that Whisper publishes (fixtures/whisper/mel_filters.npz), `mel_80` and `mel_128`: rows of filter, bin, weight.

References: transformers' WhisperFeatureExtractor, in its NumPy form (float64 inside); its PyTorch form (float32) is
compared with it here and the largest difference printed.
torchaudio.compliance.kaldi.fbank in float64. Versions are in the metadata.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
import transformers
from safetensors.numpy import save_file
from torchaudio.compliance.kaldi import fbank
from transformers import WhisperFeatureExtractor

warnings.filterwarnings("ignore")
RATE = 16_000
OUT = Path(__file__).resolve().parents[2] / "crates/sandhi-data/tests/golden/features"
VERSIONS = {
    "made_by": "tools/golden/features.py",
    "numpy": np.__version__,
    "torch": torch.__version__,
    "torchaudio": torchaudio.__version__,
    "transformers": transformers.__version__,
}
# Around the start, where the sound of most inputs ends, and at the end of the 30 s.
PADDED_FRAMES = np.array([0, 1, 2, 3, 9, 10, 11, 20, 23, 24, 25, 26, 27, 1500, 2998, 2999])
# Inputs for which 128 filters would show nothing that 80 do not; the files stay small.
FEWER = ("silence", "constant", "full_scale_square", "sine_quiet", "late_impulse", "samples_399", "samples_400")


def inputs():
    rng = np.random.default_rng(20_231)
    t = np.arange(2_400) / RATE
    impulse = np.zeros(800)
    impulse[333] = 1.0
    late = np.zeros(1_600)
    late[1_599] = -0.5
    steps = np.repeat([0.0, 0.9, -0.9, 0.001], 400)
    chirp = 0.7 * np.sin(2 * np.pi * (50 * t + 0.5 * (7_900 - 50) / t[-1] * t**2))
    return {
        "impulse": impulse,
        "late_impulse": late,
        "sine_440": np.sin(2 * np.pi * 440 * t),
        "sine_quiet": 1e-4 * np.sin(2 * np.pi * 3_000 * t),
        "sine_on_a_bin": 0.5 * np.sin(2 * np.pi * 1_000 * t),
        "chirp": chirp,
        "noise": 0.3 * rng.standard_normal(2_400),
        "noise_then_silence": np.concatenate([0.3 * rng.standard_normal(1_200), np.zeros(1_200)]),
        "silence": np.zeros(1_600),
        "constant": np.full(1_600, 0.25),
        "full_scale_square": np.sign(np.sin(2 * np.pi * 200 * t[:1_200]) + 1e-9),
        "steps": steps,
        "samples_160": 0.3 * rng.standard_normal(160),
        "samples_199": 0.3 * rng.standard_normal(199),
        "samples_201": 0.3 * rng.standard_normal(201),
        "samples_399": 0.3 * rng.standard_normal(399),
        "samples_400": 0.3 * rng.standard_normal(400),
        "samples_559": 0.3 * rng.standard_normal(559),
    }


def whisper(samples, n_mels, pad):
    """[n_frames, n_mels], from the NumPy form; and how far the PyTorch form is from it."""
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    samples = samples.astype(np.float32)
    if pad:
        samples = np.pad(samples, (0, extractor.n_samples - len(samples)))
    exact = extractor._np_extract_fbank_features(samples[None], "cpu")[0]
    difference = 0.0
    if len(samples) > extractor.n_fft // 2:  # PyTorch's reflection needs more samples than it adds
        single = extractor._torch_extract_fbank_features(samples[None], "cpu")[0]
        difference = float(np.abs(single - exact).max())
    return exact.T.astype(np.float32), difference


def kaldi(samples, **options):
    """[n_frames, n_mels] in float64: in float32 torchaudio itself is off by up to 1e-2 on the sweep."""
    wave = torch.from_numpy(samples.astype(np.float32)).double()[None]
    return fbank(wave, **options).numpy().astype(np.float32)


def synthetic():
    tensors, worst = {"padded.frames": PADDED_FRAMES.astype(np.int32)}, {}
    for name, samples in inputs().items():
        samples = samples.astype(np.float32)
        tensors[f"{name}.in"] = samples
        for n_mels in (80, 128):
            if n_mels == 128 and name in FEWER:
                continue
            features, difference = whisper(samples, n_mels, pad=False)
            tensors[f"{name}.whisper{n_mels}"] = features
            worst[f"{name} {n_mels}"] = difference
        if name in ("impulse", "sine_440", "noise", "noise_then_silence", "silence"):
            features, difference = whisper(samples, 80, pad=True)
            tensors[f"{name}.padded80"] = features[PADDED_FRAMES]
            worst[f"{name} padded"] = difference
        if len(samples) >= 400:
            tensors[f"{name}.fbank"] = kaldi(samples, num_mel_bins=80)
        if name in ("noise", "sine_440", "impulse"):
            tensors[f"{name}.fbank_scaled"] = kaldi(samples * 32_768, num_mel_bins=80)
            tensors[f"{name}.fbank_hamming"] = kaldi(
                samples, num_mel_bins=23, window_type="hamming", low_freq=60, high_freq=7_600,
                preemphasis_coefficient=0.9, remove_dc_offset=False,
            )
        if name in ("noise", "samples_400", "samples_559", "impulse", "steps"):
            tensors[f"{name}.fbank_mirrored"] = kaldi(samples, num_mel_bins=40, snip_edges=False, window_type="hanning")
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, OUT / "synthetic.safetensors", metadata=VERSIONS)
    print("PyTorch form against NumPy form, largest difference:")
    for name, difference in sorted(worst.items(), key=lambda item: -item[1])[:8]:
        print(f"  {name:24} {difference:.2e}")


def clips(data):
    tensors = {}
    for name, bank in np.load(data / "fixtures/whisper/mel_filters.npz").items():
        filters, bins = np.nonzero(bank)
        tensors[name] = np.stack([filters, bins, bank[filters, bins]], axis=1).astype(np.float32)
    for path in (
        "fixtures/libri_test_clean/1089-134686-0000.flac",
        "fixtures/libri_test_clean/1089-134691-0001.flac",
    ):
        samples, rate = soundfile.read(data / path, dtype="float32")
        assert rate == RATE and samples.ndim == 1, path
        n_frames = 1 + (len(samples) - 400) // 160
        frames = np.unique(np.linspace(0, n_frames - 1, 12).astype(np.int32))
        tensors[f"{path}.frames"] = frames
        for n_mels in (80, 128):
            features, difference = whisper(samples, n_mels, pad=False)
            tensors[f"{path}.whisper{n_mels}"] = features[frames]
            print(f"{path} {n_mels}: PyTorch form differs by {difference:.2e}")
        tensors[f"{path}.fbank80"] = kaldi(samples, num_mel_bins=80)[frames]
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, OUT / "clips.safetensors", metadata=VERSIONS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without it the clips stay as they are")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    synthetic()
    if arguments.data:
        clips(arguments.data)
