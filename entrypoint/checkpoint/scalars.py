"""Read single numbers out of the shards: the only tensor data that the checks look at."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from .. import plain_file
from .read import Checkpoint


def float32(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Yield the value of each F32 tensor of one element; others, and those that cannot be read, are left out."""
    requested = set(names)
    for file in sorted(checkpoint.listed & checkpoint.shards.keys()):
        shard = checkpoint.shards[file]
        here = [name for name in requested & shard.tensors.keys() if shard.tensors[name]["dtype"] == "F32"]
        if not here:
            continue
        begin = shard.declared - max(tensor["data_offsets"][1] for tensor in shard.tensors.values())
        try:
            with plain_file.open_regular(checkpoint.folder / file) as opened:
                for name in sorted(here, key=lambda name: shard.tensors[name]["data_offsets"][0]):
                    opened.seek(begin + shard.tensors[name]["data_offsets"][0])
                    data = opened.read(4)
                    if shard.tensors[name]["data_offsets"][1] - shard.tensors[name]["data_offsets"][0] == len(data):
                        yield name, struct.unpack("<f", data)[0]
        except OSError:
            continue


def unequal(checkpoint: Checkpoint, prefixes: Iterable[str], scale: str) -> list[str]:
    """Return the routed experts below `prefixes` whose w1 and w3 have different values of the tensor `scale`."""
    scales = [
        name
        for name in checkpoint.tensors
        if name.endswith((f".w1.{scale}", f".w3.{scale}"))
        and any(name.startswith(f"{prefix}.ffn.experts.") for prefix in prefixes)
    ]
    values = dict(float32(checkpoint, scales))
    ends = (f".w1.{scale}", f".w3.{scale}")
    experts = [name.removesuffix(ends[0]) for name in values if name.endswith(ends[0])]
    return sorted(e for e in experts if values[e + ends[0]] != values.get(e + ends[1], values[e + ends[0]]))
