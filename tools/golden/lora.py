"""Writes crates/sandhi-lab/tests/golden/lora/: adapters as PEFT saves them, and what PEFT computes with them.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 transformers==5.23.0 peft==0.21.2 safetensors
    venv/bin/python tools/golden/lora.py

The models below are those of language_models.py. One folder an adapter: `adapter_config.json` and
`adapter_model.safetensors` by `save_pretrained`, and `reference.safetensors` with, for one sequence,

    input_ids [n]     logits [n, vocabulary]     merged [n, vocabulary]: after merge_and_unload
    gradient.NAME     of the mean cross-entropy of the next token, for every tensor of the adapter under PEFT's name

`B` is drawn at random, as if it had been trained.
"""

import shutil
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).resolve().parents[2] / "crates/sandhi-lab/tests/golden"
VERSIONS = {
    "made_by": "tools/golden/lora.py",
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "peft": peft.__version__,
}
IDS = [1, 17, 33, 4, 79, 60, 12, 12, 45, 3, 28, 51, 9, 66, 70, 31, 8]


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def make(name, family, config):
    torch.manual_seed(sum(map(ord, name)))
    model = get_peft_model(base(GOLDEN / "language_models" / family), config).eval()
    model.peft_config["default"].base_model_name_or_path = family
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "lora_B" in path:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    folder = GOLDEN / "lora" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)

    tokens = torch.tensor([IDS])
    logits = model(tokens).logits
    torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:]).backward()
    reference = {"input_ids": tokens[0], "logits": logits[0].detach().clone()}
    for path, parameter in model.named_parameters():
        if parameter.grad is not None:
            reference["gradient." + path.replace(".default", "")] = parameter.grad.clone()
    with torch.no_grad():
        reference["merged"] = model.merge_and_unload()(tokens).logits[0].clone()
        plain = base(GOLDEN / "language_models" / family)(tokens).logits[0]
    save_file(reference, folder / "reference.safetensors", VERSIONS)
    print(f"{name}: the adapter changes logits by {float((plain - reference['logits']).abs().max()):.3f},",
          f"merging by {float((reference['merged'] - reference['logits']).abs().max()):.1e}")


make("attention", "llama3", LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
make("all_linear", "qwen2", LoraConfig(
    r=3, lora_alpha=5, use_rslora=True, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM",
))
