"""Known failures: what they look like in vLLM's log, and what to do. The data is failures.toml."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from .. import toml_file

FILE = Path(__file__).with_name("failures.toml")


@dataclass(frozen=True)
class KnownFailure:
    """One known failure; the fields are described at the head of failures.toml."""

    name: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    link: str = ""

    def advice(self, port: int) -> str:
        """Return the remedy, and the link where there is one."""
        remedy = self.remedy.format(port=port)
        return f"{remedy} ({self.link})" if self.link else remedy


@functools.cache
def known() -> tuple[KnownFailure, ...]:
    """Return every known failure, in the order in which they are tried."""
    return tuple(
        KnownFailure(name, re.compile(entry.pop("pattern")), **entry) for name, entry in toml_file.read(FILE).items()
    )


def find(line: str, *causes: str) -> KnownFailure | None:
    """Return the first known failure whose pattern is in this line, among those with these causes if any are named."""
    return next((f for f in known() if (not causes or f.cause in causes) and f.pattern.search(line)), None)
