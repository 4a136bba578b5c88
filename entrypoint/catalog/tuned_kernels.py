"""
Tables of measured kernels for experts: files in a folder beside a hardware file, which names the folder.

Their names are vLLM's, with the shape, the formats and the GPU of one product of weights; vLLM decides which it uses.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .schema import Hardware

FILES = "humming_moe,*.json"
"""The files that vLLM looks for, with the patch `read-measured-configs-of-humming-experts`."""
_NAME = re.compile(r"humming_moe,E=\d+,N=\d+,K=(\d+),a_dtype=(\w+),b_dtype=(\w+),device_name=(.+)\.json")


@dataclass(frozen=True)
class KernelTable:
    """What a table's name says: the inputs of its product in one expert, both formats, and the GPU's name."""

    inputs: int
    input_type: str
    weight_type: str
    device: str


def tables(folder: Path) -> Iterator[KernelTable]:
    """Yield the tables of a folder."""
    for file in sorted(folder.glob(FILES)):
        if found := _NAME.fullmatch(file.name):
            yield KernelTable(int(found[1]), found[2], found[3], found[4].replace("_", " "))


def located(own: Hardware, file: str, folders: Sequence[Path]) -> Path:
    """
    Return the folder that a hardware file names; raise ConfigError where it is missing, or has no table for its GPUs.

    The first of `folders` that has one of that name counts, as for profile files.
    """
    where = f"{file}: tuned-kernels = {own.tuned_kernels!r}"
    places = [Path(os.path.abspath(folder / own.tuned_kernels)) for folder in folders]  # noqa: PTH100  links stay
    fix = "put tables that `qualification/gpu/expert_kernels` wrote there, or remove the key (docs/how-to/tune.md)."
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise ConfigError(f"{where}: there is no folder {places[0]}, and no shipped one of that name; {fix}")
    devices = {table.device for table in tables(found)}
    if not devices:
        raise ConfigError(f"{where}: {found} has no file {FILES}; {fix}")
    if own.nvml_names and devices.isdisjoint(own.nvml_names):
        raise ConfigError(f"{where}: {found} has tables for {', '.join(sorted(devices))} alone; {fix}")
    return found
