"""The manifests as they are written, and as Kustomize puts them together."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.program import ends_at_once, need

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(file.parent.name for file in KUBERNETES.glob("overlays/*/kustomization.yaml"))
PLACEHOLDER = "@sha256:" + "0" * 64
SELECTED = {"app.kubernetes.io/name": "dsv4", "app.kubernetes.io/component": "replica"}
Manifest = dict[str, Any]


def written(folder: Path) -> list[Manifest]:
    """Every object in the files of a folder, as they are written; needs no kubectl."""
    files = [file for file in sorted(folder.glob("*.yaml")) if file.name != "kustomization.yaml"]
    return [one for file in files for one in yaml.safe_load_all(file.read_text()) if one and "kind" in one]


BASE = written(KUBERNETES / "base")


def kustomize(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    return _loaded(_kustomized(folder))


def overlay(name: str) -> list[Manifest]:
    return _loaded(_once(KUBERNETES / "overlays" / name, name))


def laid_over(name: str, image: str) -> list[Manifest]:
    """An overlay as a user changes it: in the namespace `mine`, and with an image REPOSITORY@DIGEST in place of ours."""
    repository, _, digest = image.partition("@")
    folder = Path(tempfile.mkdtemp())
    body = {
        "namespace": "mine",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / name, folder)],
        "images": [{"name": "dsv4-serve", "newName": repository, "digest": digest}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(body))
    return _loaded(_once(folder, f"{name}-mine"))


@functools.cache
def _once(folder: Path, name: str) -> str:
    """As all processes of a run see it, which have one TMPDIR: the first one asks kubectl."""
    kept = Path(tempfile.gettempdir()) / f"kustomize-{name}.yaml"
    if not kept.exists():
        mine = kept.with_suffix(f".{os.getpid()}")
        mine.write_text(_kustomized(folder))
        mine.rename(kept)
    return kept.read_text()


def _kustomized(folder: Path) -> str:
    argv = [need("kubectl", "KUBECTL"), "kustomize", folder]
    done = subprocess.run(argv, env=ends_at_once(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _loaded(text: str) -> list[Manifest]:
    """What the text says, to be changed at will."""
    loaded: list[Manifest] = pickle.loads(_packed(text))
    return loaded


@functools.cache
def _packed(text: str) -> bytes:
    """A text once read: pickle takes a tenth of the time of CSafeLoader, and that an eighth of safe_load_all's."""
    return pickle.dumps(list(yaml.load_all(text, yaml.CSafeLoader)))


def one(manifests: list[Manifest], kind: str, name: str = "dsv4") -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def templates(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template with a name for it: of a Deployment one, of a LeaderWorkerSet two."""
    for manifest in manifests:
        spec, name = manifest.get("spec") or {}, manifest["metadata"]["name"]
        if "template" in spec:
            yield name, spec["template"]
        for role in ("leaderTemplate", "workerTemplate"):
            if role in spec.get("leaderWorkerTemplate", {}):
                yield f"{name} {role}", spec["leaderWorkerTemplate"][role]


def replicas(manifests: list[Manifest]) -> list[Manifest]:
    """The pod specs that run our image and answer."""
    return [t["spec"] for _, t in templates(manifests) if "readinessProbe" in container(t["spec"]) and ours(t["spec"])]


def ours(pod: Manifest) -> bool:
    return "dsv4-serve" in container(pod)["image"]


def container(pod: Manifest) -> Manifest:
    return pod["containers"][0]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def env(a_container: Manifest) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in a_container.get("env", [])}


def gib(quantity: str) -> float:
    units = {"Gi": 1.0, "Mi": 1 / 1024}
    return float(quantity[:-2]) * units[quantity[-2:]]
