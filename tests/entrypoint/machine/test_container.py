"""A container is known by a file of its runtime or by a variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsv4_serve.entrypoint.machine import container


@pytest.mark.parametrize("environ", [{"container": "podman"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}])
def test_variables_tell(environ: dict[str, str], tmp_path: Path) -> None:
    assert container.inside(environ, tmp_path)


@pytest.mark.parametrize("name", [".dockerenv", "run/.containerenv"])
def test_files_tell(name: str, tmp_path: Path) -> None:
    assert not container.inside({"container": ""}, tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert container.inside({}, tmp_path)


def test_both_images_say_so() -> None:
    text = (Path(__file__).parents[3] / "Dockerfile").read_text(encoding="utf-8")
    assert text.count("container=oci") == text.count("\nENTRYPOINT")
