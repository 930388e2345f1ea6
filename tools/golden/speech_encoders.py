"""Writes crates/sandhi-lab/tests/golden/speech_encoders/: tiny random checkpoints and what their authors' code makes of them.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors
    venv/bin/python tools/golden/speech_encoders.py

One folder a family, laid out as published checkpoints are. `reference.safetensors` holds, for two inputs run alone:

    input_features.N [n, n_mels]     last_hidden_state.N [n_frames, d_model]
    gradient.NAME                    of the mean square of the last hidden states of both inputs

Weights are drawn wide, norms too, so that a part that is left out shows.
"""

import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

OUT = Path(__file__).resolve().parents[2] / "crates/sandhi-lab/tests/golden/speech_encoders"
VERSIONS = {
    "made_by": "tools/golden/speech_encoders.py",
    "torch": torch.__version__,
    "transformers": transformers.__version__,
}


def whisper():
    config = WhisperConfig(
        vocab_size=20, num_mel_bins=12, d_model=24, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=40,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, max_source_positions=18, max_target_positions=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
        begin_suppress_tokens=None, dropout=0.0,
    )
    model = WhisperForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "embed_positions" in path:
                continue
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    folder = OUT / "whisper"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    encoder = model.model.encoder
    reference, total, n = {}, 0.0, 0
    for i in range(2):
        features = torch.randn(1, 12, 36)
        hidden = encoder(features).last_hidden_state[0]
        reference[f"input_features.{i}"] = features[0].T.contiguous()
        reference[f"last_hidden_state.{i}"] = hidden.detach().clone()
        total = total + hidden.square().sum()
        n += hidden.numel()
    (total / n).backward()
    for path, parameter in encoder.named_parameters():
        if parameter.grad is not None:
            reference[f"gradient.{path}"] = parameter.grad.clone()
    save_file(reference, folder / "reference.safetensors", VERSIONS)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"whisper: {size // 1024} kB")


torch.manual_seed(20_231)
whisper()
