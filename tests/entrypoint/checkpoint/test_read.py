"""A folder of weights becomes facts, whatever is in it."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest

from dsv4_serve.demo.v4_tensors import f32, save
from dsv4_serve.entrypoint.checkpoint import read
from dsv4_serve.entrypoint.checkpoint.read import INDEX


def shard(folder: Path, file: str, *names: str) -> None:
    save(folder / file, {name: f32(np.ones(2)) for name in names})


def index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_the_shards_of_the_index_are_those_that_count(tmp_path: Path) -> None:
    shard(tmp_path, "a.safetensors", "x")
    shard(tmp_path, "consolidated.safetensors", "x", "y")
    index(tmp_path, {"x": "a.safetensors"})
    seen = read.read(tmp_path)
    assert set(seen.shards) == {"a.safetensors", "consolidated.safetensors"}
    assert (seen.listed, list(seen.tensors)) == ({"a.safetensors"}, ["x"])


def test_without_an_index_every_file_counts(tmp_path: Path) -> None:
    shard(tmp_path, "a.safetensors", "x")
    shard(tmp_path, "b.safetensors", "y")
    seen = read.read(tmp_path)
    assert seen.index.absent
    assert set(seen.tensors) == {"x", "y"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"version https://git-lfs.github.com/spec/v1"]
)
def test_a_broken_document_is_a_fault(tmp_path: Path, content: bytes) -> None:
    for name in ("config.json", INDEX):
        (tmp_path / name).write_bytes(content)
    seen = read.read(tmp_path)
    assert seen.config.fault
    assert seen.index.fault
    assert not seen.weight_map


@pytest.mark.parametrize("weight_map", [None, [], {}, {"x": 1}, {"x": []}, {"x": "a", "y": None}])
def test_an_index_without_a_map_of_files_is_as_none(tmp_path: Path, weight_map: object) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert read.read(tmp_path).weight_map == {}


def test_what_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").symlink_to("blobs/gone")  # a Hub cache whose blobs were removed
    (tmp_path / "config.json").mkdir()
    seen = read.read(tmp_path)
    assert "cannot be read (No such file" in seen.shards["a.safetensors"].fault
    assert "cannot be read (Is a directory)" in seen.config.fault


def test_a_checkpoint_is_legible_when_every_tensor_is_known(tmp_path: Path) -> None:
    shard(tmp_path, "a.safetensors", "x")
    index(tmp_path, {"x": "a.safetensors"})
    assert read.read(tmp_path).is_legible
    index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
    assert not read.read(tmp_path).is_legible
    (tmp_path / "b.safetensors").write_bytes(os.urandom(50))
    assert not read.read(tmp_path).is_legible


def test_downloads_that_have_not_ended_are_counted(tmp_path: Path) -> None:
    parts = tmp_path / ".cache/huggingface/download"
    parts.mkdir(parents=True)
    (parts / "abc.incomplete").touch()
    assert read.read(tmp_path).unfinished == 1


def test_the_collector_runs_on_after_reading(tmp_path: Path) -> None:
    read.read(tmp_path)
    assert gc.isenabled()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read.read(tmp_path / "none")
