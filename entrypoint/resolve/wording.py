"""How a checkpoint, and the hardware that a profile is for, are described to a user. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..catalog.catalog import ANY_GPU, Catalog
from ..checkpoint.identity import Drafter, Identity

GIB = 1 << 30
NOT_READ = "not read"
"""What a plan says of a checkpoint whose files are not at hand."""
_NAMES = {"mtp": "an MTP head", "dspark": "a DSpark drafter"}


def described(identity: Identity) -> str:
    """Return what a checkpoint is, in one clause: architecture, scheme, drafter and size."""
    size = f", {identity.bytes / GIB:.1f} GiB" if identity.bytes else ""
    return f"{identity.architecture}, {_scheme(identity.scheme)}, {drafter(identity.drafter)}{size}"


def _scheme(name: str) -> str:
    return "BF16" if name == "unquantized" else name


def drafter(of: Drafter) -> str:
    """Return what a checkpoint ships to draft with."""
    if of.kind == "none":
        return "no drafter"
    stored = f" in {_scheme(of.scheme)}" if of.scheme else ""
    layers = f" of {of.layers} layers" if of.layers > 1 else ""
    size = f" ({of.bytes / GIB:.1f} GiB)" if of.bytes else ""
    return f"{_NAMES[of.kind]}{layers}{stored}{size}"


def hardware_of(kinds: Iterable[str], catalog: Catalog | None) -> str:
    """Return the hardware that a profile is for: its names, and those of an architecture's GPUs."""
    parts = []
    for kind in kinds:
        if kind == ANY_GPU:
            return "a GPU"
        if catalog is None or kind not in catalog.names("architecture"):
            parts.append(kind)
            continue
        names = [file.name for file in catalog.every_hardware() if file.is_one_of([kind])]
        parts.append(f"a GPU of SM {kind.removeprefix('sm-').partition('.')[0]}.x ({', '.join(names)})")
    return " or ".join(parts)
