"""What an overlay says, from a command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsv4_serve.entrypoint.cli.parser import parse
from dsv4_serve.entrypoint.cli.request import request
from dsv4_serve.entrypoint.kubernetes import options as ours
from dsv4_serve.entrypoint.kubernetes.overlay import Overlay
from tests.support.program import need


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOGC", "off")  # as `ends_at_once`: also where the product runs kubectl
    for name in ("PROFILE", "MODEL", "HARDWARE", "TP", "DSV4_SKIP", "DSV4_NCCL", "DSV4_PROFILES", "API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def overlay_for() -> Callable[..., Overlay]:
    """The overlay for a command line; of two replicas unless it says otherwise."""

    def overlay(*argv: str) -> Overlay:
        options, _ = parse(["manifests", "--replicas", "2", *argv])
        return ours.overlay(options, request(options, []))

    return overlay


@pytest.fixture
def rendered() -> Callable[[Path], dict[str, Any]]:
    """What `kubectl apply -k` would send of a folder: the objects, by kind and name."""
    program = need("kubectl", "KUBECTL")

    def render(folder: Path) -> dict[str, Any]:
        done = subprocess.run([program, "kustomize", folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.load_all(done.stdout, yaml.CSafeLoader)}

    return render
