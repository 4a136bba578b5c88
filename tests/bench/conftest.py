"""What several benchmarks use: a clean environment, and a checkpoint as large as the published NVFP4 one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.deepseek_v4 import Dims, write
from dsv4_serve.entrypoint.checkpoint import read
from dsv4_serve.entrypoint.checkpoint.read import INDEX

LAYERS, EXPERTS, SHARDS = 43, 256, 35
RATIOS = [0, 0, *([4, 128] * 20), 4, 0]  # 43 layers and the MTP layer


@pytest.fixture(scope="session")
def clean() -> dict[str, str]:
    """The environment without settings of the product's."""
    return {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "HOME")}


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 layers of 256 experts in 35 shards: the headers are real, the data is a hole in a sparse file."""
    folder = tmp_path_factory.mktemp("large")
    write(folder / "tiny", "nvfp4", Dims(experts=8, ratios=(0, 4, 128, 0)))
    tiny = read.read(folder / "tiny")
    tensors: list[tuple[str, Any]] = []
    for name, tensor in tiny.tensors.items():
        like = re.fullmatch(r"layers\.([0-3])\.(.*)", name)
        layers = [n for n in range(LAYERS) if like and like[1] == kind(n)]
        tensors += [(f"layers.{n}.{like[2]}", tensor) for n in layers if like] if like else [(name, tensor)]
    tensors = [named for name, tensor in tensors for named in every_expert(name, tensor)]
    weight_map = {}
    for number in range(SHARDS):
        part = tensors[number::SHARDS]
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        save_sparse(folder / file, part)
        weight_map |= dict.fromkeys((name for name, _ in part), file)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}, indent=2))
    changes = {"num_hidden_layers": LAYERS, "compress_ratios": RATIOS, "n_routed_experts": EXPERTS}
    (folder / "config.json").write_text(json.dumps({**tiny.config.value, **changes}))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "tiny" / file).rename(folder / file)
    return folder


def kind(layer: int) -> str:
    """The layer of the small checkpoint that is built alike: hashed, C4, C128, or without a compressor."""
    return "0" if layer == 0 else {4: "1", 128: "2", 0: "3"}[RATIOS[layer]]


def every_expert(name: str, tensor: Any) -> list[tuple[str, Any]]:
    if ".experts.0." in name:
        return [(name.replace(".experts.0.", f".experts.{expert}."), tensor) for expert in range(EXPERTS)]
    if name.endswith(("ffn.gate.weight", "ffn.gate.bias")):
        size = tensor["data_offsets"][1] - tensor["data_offsets"][0]
        times = EXPERTS // tensor["shape"][0]
        return [(name, {**tensor, "shape": [EXPERTS, *tensor["shape"][1:]], "data_offsets": [0, size * times]})]
    return [] if ".ffn.experts." in name else [(name, tensor)]


def save_sparse(path: Path, tensors: list[tuple[str, Any]]) -> None:
    header, end = {}, 0
    for name, tensor in tensors:
        size = tensor["data_offsets"][1] - tensor["data_offsets"][0]
        header[name] = {**tensor, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
