"""Xid: errors that NVIDIA's driver reports about a GPU, what each means, and what to do. The data is xid.toml."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import toml_file

FILE = Path(__file__).with_name("xid.toml")
KINDS = ("gpu", "link", "driver", "program", "echo")
"""The likeliest cause first."""
UNKNOWN = "unknown"
"""The address of a GPU that NVML cannot name any more."""
ECC, ROW_PENDING, ROW_FAILED, LOST, NOT_CONTAINED, RECOVERY = 48, 63, 64, 79, 95, 154
"""Errors that events and states of NVML stand for."""
_KERNEL = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<bus>[0-9A-Fa-f:.]+)(?: [^)]*)?\): (?P<number>\d+)")
_BUS = re.compile(r"(?:([0-9A-Fa-f]+):)?([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})(?:\.\d)?")


@dataclass(frozen=True)
class Xid:
    """One error: its number, and the GPU's PCI address as Linux writes it, without the function."""

    number: int
    bus: str
    state: bool = field(default=False, compare=False)
    """Whether it was read from the GPU's state, and no event named this number."""

    @property
    def fact(self) -> Mapping[str, Any]:
        """Return what is known about this number."""
        unknown = {"kind": "driver", "what": "an error that is not known here", "remedy": "{report}", "serves": True}
        return known().get(self.number, unknown)

    @property
    def serves(self) -> bool:
        """Whether the GPU works as before: it did not fail, or the driver's state of it will tell."""
        return not self.state and bool(self.fact.get("serves", self.fact["kind"] in ("program", "echo")))

    def clause(self) -> str:
        """Return `Xid 79 on GPU 0000:0a:00 (the GPU has fallen off the bus)`."""
        name = f"a state like Xid {self.number}" if self.state else f"Xid {self.number}"
        return f"{name} on GPU {self.bus} ({self.fact['what']})"

    @property
    def remedy(self) -> str:
        """Return what to do."""
        return str(self.fact["remedy"])


@functools.cache
def known() -> dict[int, dict[str, Any]]:
    """Return kind, what and remedy by number, and whether the replica stays ready."""
    return {int(number): entry for number, entry in toml_file.read(FILE).items()}


def in_kernel_log(line: str) -> Xid | None:
    """Return the error in a line of the kernel log, or None."""
    match = _KERNEL.search(line)
    return Xid(int(match["number"]), bus(match["bus"])) if match else None


def bus(text: str) -> str:
    """Return a PCI address in one form: NVML writes `00000000:0A:00.0`, the driver `0000:0a:00`."""
    match = _BUS.fullmatch(text)
    return f"{int(match[1] or '0', 16):04x}:{match[2]}:{match[3]}".lower() if match else text


def ordered(xids: Iterable[Xid]) -> list[Xid]:
    """Return each error once, the likeliest cause first; of one kind, the first that came."""
    return sorted(dict.fromkeys(xids), key=lambda xid: KINDS.index(xid.fact["kind"]))
