"""The layout of each model, and the folder of its small checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsv4_serve.demo import v4_layouts
from dsv4_serve.entrypoint.errors import ConfigError, HostError
from dsv4_serve.entrypoint.qualify import checkpoint
from tests.support.plans import CATALOG, request, selected

NONE = {"demo", "flash-base", "flash-vision", "v41-flash", "v41-flash-nvfp4"}
"""Models of other architectures, and of a scheme that no constructed checkpoint has."""


@pytest.mark.parametrize("name", CATALOG.names("model"))
def test_every_model_has_a_small_checkpoint_or_is_known_to_have_none(name: str) -> None:
    profile = {"demo": "demo", "demo-v4": "demo-v4"}.get(name, "64k")
    requested = request(profile=profile, model=name, hardware="cpu" if name.startswith("demo") else "h200")
    if name in NONE:
        with pytest.raises(ConfigError, match=f"no small checkpoint of the layout of {name}"):
            checkpoint.layout_of(selected(requested))
    else:
        assert checkpoint.layout_of(selected(requested)) in v4_layouts.LAYOUTS


@pytest.mark.parametrize(
    ("name", "layout"),
    [("w4a16", "w4a16"), ("acti", "acti"), ("flash-0731", "flash-0731"), ("pro-nvfp4", "pro"), ("pro", "native")],
)
def test_the_layout_is_that_of_the_artifact(name: str, layout: str) -> None:
    assert checkpoint.layout_of(selected(request(profile="64k", model=name, hardware="h200"))) == layout


def test_a_checkpoint_is_written_once_and_again_where_it_is_not_whole(tmp_path: Path) -> None:
    first = checkpoint.write(tmp_path, "bf16", tiny=True)
    config = first.folder / "config.json"
    before = config.stat().st_mtime_ns
    assert json.loads(config.read_text())["n_routed_experts"] == 64
    assert checkpoint.write(tmp_path, "bf16", tiny=True) == first
    assert config.stat().st_mtime_ns == before
    (first.folder / "written.json").unlink()
    checkpoint.write(tmp_path, "bf16", tiny=True)
    assert config.stat().st_mtime_ns > before


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.mkdir()
        (path / "part").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(HostError, match=r"cannot write .*/x-\w+ \(No space left on device\); set DSV4_CACHE"):
        checkpoint.written(tmp_path, "x", ["tiny"], write)
    assert not list(tmp_path.iterdir())
