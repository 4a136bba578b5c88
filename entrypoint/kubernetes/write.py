"""Write an overlay with the base that it stands on into a folder, or render both as one stream."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import ConfigError, HostError, NotFound
from .overlay import Overlay, files

SHIPPED = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
"""Where the manifests lie, in a checkout and in an installed package."""


def folder(one: Overlay, out: Path) -> None:
    """Write what `kubectl apply -k OUT` needs, and nothing else; raise ConfigError when `out` is in use."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder, and nothing is written over; give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("base", *([f"components/{one.weights.component}"] if one.weights.component else [])):
            shutil.copytree(SHIPPED / name, out / name)
        for name, text in files(one).items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise HostError(f"{out}: cannot be written ({error.strerror or error}).") from None


def stream(one: Overlay) -> str:
    """Return the rendered manifests; raise NotFound without kubectl, HostError with what it says when it fails."""
    program = shutil.which("kubectl")
    if program is None:
        raise NotFound("kubectl, which renders the stream, is not on PATH; write a folder instead: --out DIR.")
    with tempfile.TemporaryDirectory() as place:
        folder(one, Path(place))
        done = subprocess.run([program, "kustomize", place], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"`kubectl kustomize` failed: {' '.join(done.stderr.split())}")
    return done.stdout
