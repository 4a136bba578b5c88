"""How a checkpoint is described to a user. Pure."""

from __future__ import annotations

from ..checkpoint.identity import Drafter, Identity

GIB = 1 << 30
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
