"""Writes a reference for `sandhi verify`: inputs of a model and what transformers makes of them.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tools/reference.py MODEL OUT.safetensors

MODEL is a directory or a name on the hub. Inputs are drawn from a seed: token ids in two sequences, the second one shorter
and padded on the right; log-mel features for Whisper's encoder; or a second of noise for one that hears samples (wav2vec
2.0, HuBERT, WavLM), two utterances where padding changes nothing. Everything is computed in f32 on the CPU.
"""

import argparse

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForCTC

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("model")
parser.add_argument("out")
parser.add_argument("--length", type=int, default=32, help="tokens of the longer sequence")
parser.add_argument("--samples", type=int, default=16_000, help="samples of the longer utterance")
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

torch.manual_seed(arguments.seed)
config = AutoConfig.from_pretrained(arguments.model)
with torch.no_grad():
    if config.model_type == "whisper":
        encoder = AutoModel.from_pretrained(arguments.model, dtype=torch.float32).encoder.eval()
        features = torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions)
        reference = {
            "input_features": features,
            "last_hidden_state": encoder(features).last_hidden_state,
        }
    elif config.model_type in ("wav2vec2", "hubert", "wavlm"):
        with_head = any(name.endswith("ForCTC") for name in config.architectures or [])
        kind = AutoModelForCTC if with_head else AutoModel
        model = kind.from_pretrained(arguments.model, dtype=torch.float32).eval()
        # Group norm takes padding for silence.
        padded = config.feat_extract_norm == "layer"
        values = torch.randn(1 + padded, arguments.samples)
        mask = torch.ones(values.shape, dtype=torch.long)
        if padded:
            mask[1, 3 * arguments.samples // 4 :] = 0
            values = values * mask
        out = model(values, attention_mask=mask)
        reference = {"input_values": values, "attention_mask": mask}
        if with_head:
            base = getattr(model, model.base_model_prefix)
            reference["logits"] = out.logits
            reference["last_hidden_state"] = base(values, attention_mask=mask).last_hidden_state
        else:
            reference["last_hidden_state"] = out.last_hidden_state
    else:
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
        length = arguments.length
        ids = torch.randint(0, config.vocab_size, (2, length))
        mask = torch.ones_like(ids)
        mask[1, length // 2 :] = 0
        out = model(ids, attention_mask=mask, output_hidden_states=True)
        reference = {
            "input_ids": ids,
            "attention_mask": mask,
            "logits": out.logits,
            "last_hidden_state": out.hidden_states[-1],
        }
save_file({name: tensor.contiguous() for name, tensor in reference.items()}, arguments.out)
print({name: list(tensor.shape) for name, tensor in reference.items()})
