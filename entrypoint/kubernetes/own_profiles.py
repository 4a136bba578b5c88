"""Read the operator's profile files, and the tables of kernels beside them, which go into a ConfigMap."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..catalog import tuned_kernels
from ..catalog.catalog import Catalog
from ..errors import ConfigError, HostError
from .overlay import profile_key

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
    _check_keys(found)
    return found


def _check_keys(paths: Iterable[str]) -> None:
    """Raise ConfigError where two files differ only in characters that a key cannot have."""
    of_key: dict[str, str] = {}
    for path in paths:
        other = of_key.setdefault(profile_key(path), path)
        if other != path:
            raise ConfigError(
                f"environment DSV4_PROFILES: {other} and {path} have the same key in a ConfigMap, {profile_key(path)};"
                " rename one of them."
            )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"cannot read {file}: {error}.") from None
