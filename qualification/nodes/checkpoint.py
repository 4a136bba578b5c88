"""The demo's tiny Llama with two heads and two layers, so that two ranks can share it; it gives the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from dsv4_serve.demo import llama


def write(folder: Path) -> Path:
    """Write the checkpoint into a folder; the second head and the second layer add nothing."""
    llama.write_checkpoint(folder)
    file, config_file = folder / "model.safetensors", folder / "config.json"
    tensors = load_file(file)
    for name in list(tensors):
        if name.endswith("q_proj.weight"):
            tensors[name] = np.concatenate([tensors[name], np.zeros_like(tensors[name])])
        if name.endswith("o_proj.weight"):
            tensors[name] = np.concatenate([tensors[name], np.zeros_like(tensors[name])], axis=1)
    first = {name: value for name, value in tensors.items() if ".layers.0." in name}
    for name, value in first.items():
        silent = name.endswith(("o_proj.weight", "down_proj.weight"))
        tensors[name.replace(".layers.0.", ".layers.1.")] = np.zeros_like(value) if silent else value.copy()
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config |= {"num_attention_heads": 2, "num_hidden_layers": 2}
    config_file.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder
