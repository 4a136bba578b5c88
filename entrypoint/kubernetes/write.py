"""Write an overlay and its base into a folder, or render both as one stream."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, HostError, NotFound
from .overlay import Overlay, comments, documents

SHIPPED = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
"""The folder of the manifests, in a checkout and in an installed package."""


def files(overlay: Overlay) -> dict[str, str]:
    """Return the text of the overlay's own files by name."""
    above = comments(overlay)
    return {name: _yaml(above[name], document) for name, document in documents(overlay).items()}


def folder(overlay: Overlay, out: Path) -> None:
    """Write what `kubectl apply -k OUT` needs, and nothing else; raise ConfigError when `out` is in use."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder, and nothing is overwritten; give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("base", *([f"components/{overlay.weights.component}"] if overlay.weights.component else [])):
            shutil.copytree(SHIPPED / name, out / name)
        for name, text in files(overlay).items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise HostError(f"cannot write {out} ({error.strerror or error}).") from None


def stream(overlay: Overlay) -> str:
    """Return the rendered manifests; raise NotFound without kubectl, HostError with its message when it fails."""
    program = shutil.which("kubectl")
    if program is None:
        raise NotFound("kubectl, which renders the stream, is not on PATH; write a folder instead: --out DIR.")
    with tempfile.TemporaryDirectory() as place:
        folder(overlay, Path(place))
        done = subprocess.run([program, "kustomize", place], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"`kubectl kustomize` failed: {' '.join(done.stderr.split())}")
    return done.stdout


def _yaml(comments: Iterable[str], document: Mapping[str, Any]) -> str:
    above = "".join(f"# {line}\n" for comment in comments for line in comment.splitlines())
    return above + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
