"""Write an overlay and its base into a folder, or render both as one stream."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, HostError, NotFound
from . import group
from .edits import edits
from .overlay import Overlay, comments, components, documents, profile_file


class _NoAliases(yaml.SafeDumper):
    """Writes what two pods share twice: an overlay is read by people."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


SHIPPED = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
"""The folder of the manifests, in a checkout and in an installed package."""


def files(overlay: Overlay) -> dict[str, str]:
    """Return the text of the overlay's own files by name."""
    above, found = comments(overlay), documents(overlay)
    if overlay.nodes > 1:
        base = yaml.safe_load((SHIPPED / "base/deployment.yaml").read_text(encoding="utf-8"))
        found["group.yaml"] = group.document(overlay, base)
    return {name: _yaml(above[name], document) for name, document in found.items()}


def folder(overlay: Overlay, out: Path) -> None:
    """Write what `kubectl apply -k OUT` needs, and nothing else; raise ConfigError when `out` is in use."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder, and nothing is overwritten; give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("base", *(f"components/{name}" for name in components(overlay))):
            shutil.copytree(SHIPPED / name, out / name)
        _bring_outside(out)
        for file, texts in edits(overlay).items():
            _edit(out / "components" / file, texts)
        profiles = {f"profiles/{profile_file(path)}": text for path, text in overlay.profiles.items()}
        for path, text in {**files(overlay), **profiles}.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise HostError(f"cannot write {out} ({error.strerror or error}).") from None


def _bring_outside(out: Path) -> None:
    """Copy what components include from outside of the manifests, such as HAProxy's configuration, and point to it."""
    for file in out.glob("components/*/kustomization.yaml"):
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"^  - \.\./\.\./\.\./([a-z-]+)$", text, re.MULTILINE):
            shutil.copytree(
                SHIPPED.parent / name, out / name, ignore=lambda folder, names: _unused(Path(folder), names)
            )
            text = text.replace(f"- ../../../{name}\n", f"- ../../{name}\n")
        file.write_text(text, encoding="utf-8")


def _unused(folder: Path, names: list[str]) -> list[str]:
    """Return the files of a folder that its kustomization does not name."""
    text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    return [name for name in names if name != "kustomization.yaml" and name not in text]


def _edit(file: Path, texts: Mapping[str, str]) -> None:
    """Replace texts that have to be in a file: a component that changed without its edits is an error of ours."""
    text = file.read_text(encoding="utf-8")
    for old, new in texts.items():
        if old not in text:
            raise LookupError(f"{file.name} has no {old!r}")
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


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
    return above + yaml.dump(document, Dumper=_NoAliases, sort_keys=False, width=120, allow_unicode=True)
