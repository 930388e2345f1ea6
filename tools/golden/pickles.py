"""Writes crates/sandhi-lab/tests/golden/pickles/: PyTorch's own files of tensors, good ones and bad ones.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 safetensors
    venv/bin/python tools/golden/pickles.py

    whole/pytorch_model.bin     the tensors of language_models/llama2
    shards/pytorch_model*.bin   those of language_models/qwen2 in two files, with their index
    types.bin                   every type that is read, views, a whole-number buffer; types.safetensors says what they are
    legacy.bin                  the same in the format before PyTorch 1.6
    calls.bin                   calls os.system where a tensor should be
    hidden.bin                  calls os.system and throws away what it gives; all tensors are right
    memo.bin                    the same, with a name that is put together while it is read
    protocol4.bin               harmless, but all its names are put together so
    expanded.bin                a file of a few hundred bytes whose tensor has 2^31 values
    whole_numbers.bin           weights of whole numbers
    config.bin                  a text beside the tensors

The bad ones are made of bytes here; nothing of them is ever run.
"""

import json
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parents[2] / "crates/sandhi-lab/tests/golden"
OUT = GOLDEN / "pickles"
VERSIONS = {"made_by": "tools/golden/pickles.py", "torch": torch.__version__}


def save(tensors, name, **options):
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path, **options)


def patched(source, name, change):
    """A copy of a file with another data.pkl."""
    with zipfile.ZipFile(OUT / source) as old, zipfile.ZipFile(OUT / name, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith("/data.pkl"):
                data = change(data)
            new.writestr(item, data)


def in_front(opcodes):
    """A change that puts opcodes before the first one, after the protocol's two bytes."""
    return lambda data: data[:2] + opcodes + data[2:]


CALL = b"cos\nsystem\nX\x04\x00\x00\x00true\x85R"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    models = GOLDEN / "language_models"
    # As `Module.state_dict` gives them: with the versions of all modules as an attribute of the dictionary.
    state = OrderedDict(load_file(models / "llama2/model.safetensors"))
    state._metadata = OrderedDict({"": {"version": 1}, "model": {"version": 1}})
    save(state, "whole/pytorch_model.bin")

    tensors = load_file(models / "qwen2/model.safetensors")
    names = sorted(tensors)
    shards = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for i, part in enumerate(shards, 1):
        file = f"pytorch_model-{i:05d}-of-{len(shards):05d}.bin"
        save({name: tensors[name].clone() for name in part}, f"shards/{file}")
        weight_map |= {name: file for name in part}
    index = {"metadata": VERSIONS, "weight_map": weight_map}
    (OUT / "shards/pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")

    torch.manual_seed(1)
    base = torch.randn(4, 6)
    types = {
        "f32": base,
        "f16": base.half(),
        "bf16": base.bfloat16(),
        "transposed": base.T,
        "part": base[1:3, 2:5],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "scalar": torch.tensor(2.5),
        "embeddings.position_ids": torch.arange(5)[None],
    }
    save(types, "types.bin")
    save(types, "legacy.bin", _use_new_zipfile_serialization=False)
    save(types, "protocol4.bin", pickle_protocol=4)
    expected = {name: t.detach().float().contiguous() for name, t in types.items() if "position_ids" not in name}
    save_file({name: t.clone() for name, t in expected.items()}, OUT / "types.safetensors", metadata=VERSIONS)

    save({"a": torch.ones(2)}, "plain.bin")
    # {"a": os.system("true")}: BINUNICODE a, the call, SETITEM.
    patched("plain.bin", "calls.bin", lambda data: b"\x80\x02}X\x01\x00\x00\x00a" + CALL + b"s.")
    patched("plain.bin", "hidden.bin", in_front(CALL + b"0"))
    pieces = b"X\x02\x00\x00\x00osq\xc8X\x06\x00\x00\x00systemq\xc900h\xc8h\xc9\x93X\x04\x00\x00\x00true\x85R0"
    patched("plain.bin", "memo.bin", in_front(pieces))
    (OUT / "plain.bin").unlink()
    save({"a": torch.ones(1).expand(1 << 31)}, "expanded.bin")
    save({"a": torch.ones(2, dtype=torch.long)}, "whole_numbers.bin")
    save({"a": torch.ones(2), "about": "a model"}, "config.bin")
    for name in ["types.bin", "legacy.bin"]:
        found = torch.load(OUT / name, weights_only=True)
        assert all(torch.equal(found[key], value) for key, value in types.items())


main()
