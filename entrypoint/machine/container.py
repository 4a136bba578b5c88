"""Tell whether this process runs in a container, whose ports are closed until somebody publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_FILES = (".dockerenv", "run/.containerenv")
"""Docker's and Podman's; other runtimes are known by their variables."""
_VARIABLES = ("container", "KUBERNETES_SERVICE_HOST")
"""systemd's convention, which our images follow, and what Kubernetes sets in every pod."""


def inside(environ: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Tell whether a variable or a file says so."""
    return any(environ.get(name) for name in _VARIABLES) or any((root / name).exists() for name in _FILES)
