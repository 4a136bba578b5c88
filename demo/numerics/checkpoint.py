"""
Write a random checkpoint: the same numbers in every layout.

`python -m dsv4_serve.demo.numerics.checkpoint DIR --layout native --size tiny` writes one.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .. import deepseek_v4
from ..tokenizer import write_text_files
from ..v4_layouts import LAYOUTS, Layout, Storage, config
from ..v4_tensors import Tensor, bf16, f32
from ..v4_text import byte_walk
from ..v4_weights import Dims
from . import weights
from .sizes import SIZES, YARN_FACTOR
from .weights import Parameter

SEED = 23
Tensors = dict[str, Tensor]
Draw = Callable[[Parameter, int], Any]


def plainly(parameter: Parameter, seed: int) -> Any:
    """Draw a parameter."""
    return parameter.draw(seed)


def write(folder: Path, layout: str = "bf16", size: str = "tiny", *, draw: Draw = plainly) -> None:
    """Write config, tokenizer (bytes), weights and their index; `draw` may put other numbers into them."""
    dims, kind = SIZES[size], LAYOUTS[layout]
    folder.mkdir(parents=True, exist_ok=True)
    drafter = weights.dspark if kind.drafter == "dspark" else weights.mtp
    shards = {
        "model-00001-of-00002.safetensors": encoded(weights.target(dims), kind, kind.target, draw),
        "model-00002-of-00002.safetensors": encoded(drafter(dims), kind, kind.draft, draw),
    }
    if kind.aliases:
        target, draft = shards.values()
        draft |= {"mtp.0.head.weight": target["head.weight"], "mtp.0.emb.tok_emb.weight": target["embed.weight"]}
    deepseek_v4.save_shards(folder, shards)
    (folder / "config.json").write_text(json.dumps(described(layout, dims), indent=2))
    walk = byte_walk(dims.vocab)
    write_text_files(folder, walk.vocabulary, walk.marks, dims.max_positions)


def described(layout: str, dims: Dims) -> dict[str, Any]:
    """Return config.json; YaRN begins early."""
    values = config(layout, dims)
    values["rope_scaling"] |= {
        "factor": YARN_FACTOR,
        "original_max_position_embeddings": dims.max_positions // YARN_FACTOR,
    }
    return values


def encoded(parameters: Iterable[Parameter], kind: Layout, storage: Storage, draw: Draw) -> Tensors:
    """Draw every parameter and encode it as the layout does."""
    out: Tensors = {}
    with ThreadPoolExecutor() as pool:  # NumPy draws and looks up without Python's lock
        for tensors in pool.map(lambda parameter: _one(parameter, draw(parameter, SEED), kind, storage), parameters):
            out |= tensors
    return out


def _one(parameter: Parameter, value: Any, kind: Layout, storage: Storage) -> Tensors:
    match parameter:
        case weights.Matrix(name=name, role=role):
            return {f"{name}.{suffix}": tensor for suffix, tensor in getattr(storage, role)(value).items()}
        case weights.RoutingTable(name=name):
            return {name: Tensor("I64", value.shape, np.ascontiguousarray(value))}
        case weights.Plain(name=name, dtype=dtype):
            narrow = dtype == "BF16" or (dtype == "HEAD" and not kind.head_f32)
            return {name: bf16(value) if narrow else f32(value)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a random DeepSeek-V4 checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="bf16")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    options = parser.parse_args()
    write(options.folder, options.layout, options.size)
