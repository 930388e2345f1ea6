"""Writes crates/sandhi-data/tests/golden/audio/: the same half second of sound in every compressed format.

    venv/bin/python tools/golden/audio.py          (numpy and soundfile)

The sound is two tones with a rising level, 0.5 t/T (sin 440 Hz + 0.5 sin 1,230 Hz), which the tests compute again;
stereo files hold it at 1.2 and 0.8 times, so that the mean is the same. 8,001 samples at 16 kHz, so
that the end of no codec's frame falls on the end of the sound.
"""

from pathlib import Path

import numpy as np
import soundfile

RATE, N = 16_000, 8_001
OUT = Path(__file__).resolve().parents[2] / "crates/sandhi-data/tests/golden/audio"

OUT.mkdir(parents=True, exist_ok=True)
t = np.arange(N) / RATE
sound = 0.5 * np.arange(N) / N * (np.sin(2 * np.pi * 440 * t) + 0.5 * np.sin(2 * np.pi * 1_230 * t))
stereo = np.stack([1.2 * sound, 0.8 * sound], axis=1)
for name, samples, subtype in (
    ("mono16.flac", sound, "PCM_16"),
    ("stereo24.flac", stereo, "PCM_24"),
    ("mono.mp3", sound, None),
    ("stereo.mp3", stereo, None),
    ("mono.ogg", sound, "VORBIS"),
    ("stereo.ogg", stereo, "VORBIS"),
    ("mulaw.wav", sound, "ULAW"),
    ("extensible24.wav", stereo, "PCM_24"),
):
    kind = {"format": "WAVEX"} if name.startswith("extensible") else {}
    soundfile.write(OUT / name, samples, RATE, subtype=subtype, **kind)
    decoded, rate = soundfile.read(OUT / name, always_2d=True)
    error = np.abs(decoded.mean(axis=1)[:N] - sound[: len(decoded)]).max()
    print(f"{name:18} {(OUT / name).stat().st_size:6} bytes, {len(decoded)} samples, off by {error:.1e}")
print(soundfile.__libsndfile_version__)
