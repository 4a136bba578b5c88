"""The manifests as they are written, and as Kustomize puts them together."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.program import need

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


@functools.cache
def _kustomize(folder: Path) -> str:
    argv = [need("kubectl", "KUBECTL"), "kustomize", folder]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kustomize(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    return list(yaml.load_all(_kustomize(folder), yaml.CSafeLoader))  # eight times as fast as safe_load_all


def overlay(name: str) -> list[Manifest]:
    return kustomize(KUBERNETES / "overlays" / name)


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
