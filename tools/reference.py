"""Writes a reference for `sandhi verify`: inputs of a model and what transformers makes of them.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tools/reference.py MODEL OUT.safetensors

MODEL is a directory or a name on the hub. Inputs are drawn from a seed: token ids in two sequences, the second one shorter
and padded on the right; or log-mel features for a speech encoder. Everything is computed in f32 on the CPU.
"""

import argparse

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("model")
parser.add_argument("out")
parser.add_argument("--length", type=int, default=32, help="tokens of the longer sequence")
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
