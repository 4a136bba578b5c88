"""
Tables of measured kernels for experts: files in a folder beside a hardware file, which names the folder.

Their names are vLLM's, with the shape, the formats and the GPU of one product of weights; vLLM decides which it uses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import plain_file
from ..errors import ConfigError
from .schema import Hardware

FILES = "humming_moe,*.json"
"""The files that vLLM looks for, with the patch `read-measured-configs-of-humming-experts`."""
_NAME = re.compile(r"humming_moe,E=\d+,N=\d+,K=(\d+),a_dtype=(\w+),b_dtype=(\w+),device_name=(.+)\.json")
_FIX = "put tables that `qualification/gpu/expert_kernels` wrote there, or remove the key (docs/how-to/tune.md)."


@dataclass(frozen=True)
class KernelTable:
    """What a table's name says: the inputs of its product in one expert, both formats, and the GPU's name."""

    inputs: int
    input_type: str
    weight_type: str
    device: str
    file: Path

    def group_size(self) -> int:
        """Return how many weights share a scale in its layer; 0 where the table does not say, or cannot be read."""
        try:
            size = plain_file.parse_json(plain_file.read(self.file))["layer_config"]["weight_scale_group_size"]
        except (OSError, ValueError, LookupError, TypeError):
            return 0  # vLLM reads it too, and says what is wrong
        return size if isinstance(size, int) else 0


def tables(folder: Path) -> Iterator[KernelTable]:
    """Yield the tables of a folder."""
    for file in sorted(folder.glob(FILES)):
        if found := _NAME.fullmatch(file.name):
            yield KernelTable(int(found[1]), found[2], found[3], found[4].replace("_", " "), file)


def located(own: Hardware, file: str, folders: Sequence[Path]) -> Path:
    """
    Return the folder that a hardware file names; raise ConfigError where it is missing, or cannot be read.

    The first of `folders` that has one of that name counts, as for profile files.
    """
    where = _where(file, own.tuned_kernels)
    places = [Path(os.path.abspath(folder / own.tuned_kernels)) for folder in folders]  # noqa: PTH100  links stay
    found = next((place for place in places if os.path.isdir(place)), None)  # noqa: PTH112  no error for another's
    if found is None:
        raise ConfigError(f"{where}: there is no folder {places[0]}, and no shipped one of that name; {_FIX}")
    if not os.access(found, os.R_OK | os.X_OK):
        raise ConfigError(f"{where}: this user cannot read {found}; run `chmod -R a+rX` on it, or remove the key.")
    return found


def check_gpus(file: str, folder: Path, gpus: Sequence[str]) -> None:
    """Raise ConfigError where the folder that a hardware file names has no table for its GPUs, inherited or not."""
    devices = {table.device for table in tables(folder)}
    where = _where(file, folder.name)
    if not devices:
        raise ConfigError(f"{where}: {folder} has no file {FILES}; {_FIX}")
    if gpus and devices.isdisjoint(gpus):
        raise ConfigError(f"{where}: {folder} has tables for {', '.join(sorted(devices))} alone; {_FIX}")


def _where(file: str, name: str) -> str:
    return f"{file}: tuned-kernels = {name!r}"
