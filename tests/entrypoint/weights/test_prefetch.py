"""Shards are read once, and not at all where memory cannot hold them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.cli.main import main
from dsv4_serve.entrypoint.errors import ConfigError, HostError
from dsv4_serve.entrypoint.weights import prefetch


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"model-{number}.safetensors").write_bytes(bytes(1000))
    (tmp_path / "tokenizer.json").write_bytes(bytes(10))
    return tmp_path


def test_every_shard_is_read(shards: Path) -> None:
    read = prefetch.prefetch(shards, 1 << 30)
    assert (read.files, read.bytes) == (3, 3000)


def test_a_link_of_the_hubs_cache_is_followed(shards: Path, tmp_path: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    (linked / "model.safetensors").symlink_to(shards / "model-0.safetensors")
    assert prefetch.prefetch(linked, 1 << 30).bytes == 1000


def test_what_memory_cannot_hold_is_not_read(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_read", lambda _: pytest.fail("it was read"))
    with pytest.raises(HostError, match="nothing was read"):
        prefetch.prefetch(shards, 3300)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no"):
        prefetch.prefetch(tmp_path, 1 << 30)


def test_a_container_may_take_less_than_its_host(tmp_path: Path) -> None:
    host = prefetch.available(tmp_path / "none")
    (tmp_path / "memory.max").write_text("4096\n")
    assert prefetch.available(tmp_path / "memory.max") == 4096
    (tmp_path / "memory.max").write_text("max\n")
    assert prefetch.available(tmp_path / "memory.max") > 4096
    assert host <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_command_says_how_fast_it_was(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "prefetch", "w4a16", "--to", str(shards), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 3000
