"""Read the operator's profile files, and the tables of kernels beside them, which go into a ConfigMap."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..catalog import tuned_kernels
from ..catalog.catalog import Catalog
from ..errors import ConfigError, HostError

MOST_BYTES = 900_000
"""A ConfigMap holds 1 MiB, names included."""


def read(folders: Iterable[Path]) -> dict[str, str]:
    """Return the text of each file by its path as in profiles/; the first folder with a file counts."""
    found: dict[str, str] = {}
    for folder in folders:
        for inside, _ in Catalog.KINDS.values():
            for file in sorted((folder / inside).glob("*.toml")):
                found.setdefault(str(file.relative_to(folder)), _text(file))
        for file in sorted((folder / Catalog.KINDS["hardware"][0]).glob(f"*/{tuned_kernels.FILES}")):
            found.setdefault(str(file.relative_to(folder)), _text(file))
    size = sum(len(text.encode()) for text in found.values())
    if size > MOST_BYTES:
        raise ConfigError(
            f"environment DSV4_PROFILES: the files have {size:,} bytes, and a ConfigMap holds 1 MiB; name a folder with"
            " only the profiles of this fleet."
        )
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"cannot read {file}: {error}.") from None
