"""A pack holds what the cache had, byte for byte, and the same cache makes the same pack."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError, HostError
from dsv4_serve.entrypoint.kernel_packs import cached, export, place, state, stream
from tests.support.packs import FILES, KEY, PROVENANCE, cache, folder_of, imported, packed, tree


def test_an_import_brings_every_file_back(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a")
    manifest, _ = packed(folder, tmp_path / "pack")
    placed = imported((tmp_path / "pack").read_bytes(), tmp_path / "b")
    there = tree(folder_of(tmp_path / "b"))
    assert {path: there[path] for path in FILES} == FILES
    assert len(placed.written) == len(manifest.files) == len(FILES) + 2
    assert not placed.kept
    assert there["starts/0123456789abcdef.json"] == (folder / "starts/0123456789abcdef.json").read_bytes()
    assert not list((tmp_path / "b").glob(".import-*"))


def test_groups_of_triton_name_the_folder_they_are_in(tmp_path: Path) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    imported((tmp_path / "pack").read_bytes(), tmp_path / "b")
    group = json.loads((folder_of(tmp_path / "b") / "triton/ABC/__grp__kernel.json").read_text())
    assert sorted(group["child_paths"]) == ["kernel.cubin", "kernel.ptx"]
    assert all(
        Path(path).is_relative_to(tmp_path / "b") and Path(path).exists() for path in group["child_paths"].values()
    )


def test_the_same_kernels_are_the_same_bytes_wherever_they_were_and_whenever(tmp_path: Path) -> None:
    _, first = packed(cache(tmp_path / "a"), tmp_path / "one")
    for file in folder_of(tmp_path / "a").rglob("*"):
        if "flashinfer" not in file.parts:
            os.utime(file, (1, 1))
    _, second = packed(folder_of(tmp_path / "a"), tmp_path / "two")
    assert first == second
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_locks_scratch_files_and_links_stay(tmp_path: Path) -> None:
    folder = cache(
        tmp_path,
        {
            **FILES,
            "triton/x.lock": b"",
            "tilelang/tmp/half.cu": b"",
            "vllm/startup_plan/startup_plan_a.json": b"{}",
            "packs/a.json": b"{}",
        },
    )
    (folder / "triton/link").symlink_to("/etc/passwd")
    paths = set(export.contents(folder))
    assert paths == {*FILES, "triton/ABC/__grp__kernel.json", "starts/0123456789abcdef.json"}


def test_the_manifest_says_what_it_is_for(tmp_path: Path) -> None:
    manifest, _ = packed(cache(tmp_path), tmp_path / "pack")
    assert str(manifest.key) == "/".join(KEY.values())
    assert (manifest.gpus, manifest.driver) == (["NVIDIA H200"], "580.159.04")
    assert manifest.series == ["list-draft-tensors applied"]
    assert manifest.plans == {"0123456789abcdef": 589.0}
    assert list(manifest.families()) == ["cuda", "flashinfer", "tilelang", "triton", "vllm/deep_gemm"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    own = folder_of(tmp_path / "b") / "triton/ABC/kernel.ptx"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    placed = imported((tmp_path / "pack").read_bytes(), tmp_path / "b")
    assert own.read_bytes() == b"mine"
    assert [file.path for file in placed.kept] == ["triton/ABC/kernel.ptx"]
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        packed(folder_of(tmp_path / "a"), tmp_path / "pack")


def test_a_file_that_a_compiler_writes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    own = folder_of(tmp_path / "b") / "triton/ABC/kernel.ptx"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    monkeypatch.setattr(place.os.path, "lexists", lambda _: False)  # it was not there when that was asked
    placed = imported((tmp_path / "pack").read_bytes(), tmp_path / "b")
    assert own.read_bytes() == b"mine"
    assert [file.path for file in placed.kept] == ["triton/ABC/kernel.ptx"]


def test_a_pack_of_another_key_changes_nothing(tmp_path: Path) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    root = tmp_path / "b"
    root.mkdir()
    for other in ({"build": "0.32.0-ffffffff"}, {"hardware": "b300"}, {"model": "acti"}):
        folder = root.joinpath(*{**KEY, **other}.values())
        with pytest.raises(ConfigError, match="nothing was changed"):
            place.place(io.BytesIO((tmp_path / "pack").read_bytes()), "pack", root, folder)
    assert tree(root) == {}


def test_a_second_import_reads_the_manifest_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    data = (tmp_path / "pack").read_bytes()
    imported(data, tmp_path / "b")
    monkeypatch.setattr(place, "blobs_into", None)
    assert imported(data, tmp_path / "b").before


def test_a_folder_without_kernels_and_a_file_that_changes_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no kernels"):
        export.describe(folder_of(tmp_path / "none"), PROVENANCE)
    folder = cache(tmp_path)
    manifest = export.describe(folder, PROVENANCE)
    (folder / "triton/ABC/kernel.ptx").write_bytes(b"new")
    with pytest.raises(HostError, match="changed meanwhile"):
        export.write(manifest, folder, tmp_path / "pack")
    assert not list(tmp_path.glob("*pack*"))


def test_each_family_is_a_hit_or_a_miss_with_its_reason(tmp_path: Path) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    placed = imported((tmp_path / "pack").read_bytes(), tmp_path / "b")
    found = {one.family: one for one in state.families(placed, "570.1")}
    assert found["triton"].miss == ""
    assert found["triton"].files == 3
    assert "builds again in another folder" in found["flashinfer"].miss
    assert "compiled by driver 580.159.04; 570.1 compiles again" in found["cuda"].miss
    assert {one.family: one.miss for one in state.families(placed, "580.159.04")}["cuda"] == ""


def test_a_second_import_brings_back_what_was_lost_since(tmp_path: Path) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    data = (tmp_path / "pack").read_bytes()
    imported(data, tmp_path / "b")
    lost = folder_of(tmp_path / "b") / "triton/ABC/kernel.ptx"
    content = lost.read_bytes()
    lost.unlink()
    again = imported(data, tmp_path / "b")
    assert ([file.path for file in again.written], again.before) == (["triton/ABC/kernel.ptx"], False)
    assert lost.read_bytes() == content
    assert imported(data, tmp_path / "b").before


def test_a_plan_that_filled_the_pack_is_a_hit(tmp_path: Path) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    placed = imported((tmp_path / "pack").read_bytes(), tmp_path / "b")
    assert "hit; its first start took 589 s" in state.plan_line(placed, "0123456789abcdef", {})
    assert "miss" in state.plan_line(placed, "ffffffffffffffff", {})


def test_verify_finds_what_was_changed_or_lost_after_an_import(tmp_path: Path) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "pack")
    imported((tmp_path / "pack").read_bytes(), tmp_path / "b")
    folder = folder_of(tmp_path / "b")
    assert cached.verify(tmp_path / "b").whole
    assert cached.verify(tmp_path / "b").checked == len(FILES) + 2
    (folder / "triton/ABC/kernel.ptx").write_bytes(b"evil")
    (folder / "cuda/3/3/9cfe19dcb4ca29").unlink()
    key = "/".join(KEY.values())
    found = cached.verify(tmp_path / "b")
    assert (found.missing, found.changed) == ([f"{key}/cuda/3/3/9cfe19dcb4ca29"], [f"{key}/triton/ABC/kernel.ptx"])


def test_only_other_builds_and_leftovers_are_pruned(tmp_path: Path) -> None:
    cache(tmp_path)
    other = tmp_path / "0.31.0-aaaaaaaa/h200/w4a16/triton"
    other.mkdir(parents=True)
    (other / "k").write_bytes(b"12345")
    long_ago = time.time() - 3 * 86400
    (tmp_path / ".import-x").mkdir()
    os.utime(tmp_path / ".import-x", (long_ago, long_ago))
    (tmp_path / ".import-running").mkdir()
    (tmp_path / "run/somebody/else").mkdir(parents=True)
    found = cached.prunable(tmp_path, KEY["build"], 0)
    assert [one.folder.name for one in found] == [".import-x", "0.31.0-aaaaaaaa"]
    assert found[1].size == 5
    assert [one.folder.name for one in cached.prunable(tmp_path, KEY["build"], 1)] == [".import-x"]
    os.utime(other / "k", (long_ago, long_ago))
    assert [one.folder.name for one in cached.prunable(tmp_path, KEY["build"], 2)] == [".import-x", "0.31.0-aaaaaaaa"]
    cached.remove(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".import-running", KEY["build"], "run"]
    assert [(one.files, one.plans, one.current) for one in cached.listed(tmp_path, KEY["build"])] == [(8, 1, True)]


@pytest.mark.process
def test_ninja_finds_an_imported_build_up_to_date(tmp_path: Path) -> None:
    """FlashInfer runs ninja over its builds at each start: without the files' own times it compiles all again."""
    inside = Path("flashinfer/build")
    folder = cache(tmp_path / "a")
    build, source = folder / inside, folder / "flashinfer/generated/source.txt"
    build.mkdir(parents=True)
    source.parent.mkdir()
    source.write_text("FlashInfer writes sources into its cache")
    (build / "build.ninja").write_text(f"rule r\n  command = cp $in $out\nbuild {build}/out: r {source}\n")
    run = ["ninja", "-C", str(build)]
    subprocess.run(run, check=True, capture_output=True)
    packed(folder, tmp_path / "pack")
    folder.rename(tmp_path / "elsewhere")
    time.sleep(0.01)
    imported((tmp_path / "pack").read_bytes(), tmp_path / "a")
    assert "no work to do" in subprocess.run(run, check=True, capture_output=True, text=True).stdout
    os.utime(build / "out", (1, 1))
    assert "no work to do" not in subprocess.run(run, check=True, capture_output=True, text=True).stdout


def test_a_reader_needs_no_more_memory_than_the_writer_asks_for(tmp_path: Path) -> None:
    assert stream.DICTIONARY < stream._MEMORY


def test_two_replicas_may_import_into_one_cache_at_once(tmp_path: Path) -> None:
    manifest, _ = packed(cache(tmp_path / "a"), tmp_path / "pack")
    data = (tmp_path / "pack").read_bytes()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: imported(data, tmp_path / "b"), range(8)))
    written = [file.path for placed in done for file in placed.written]
    assert sorted(written) == [file.path for file in manifest.files]
    assert cached.verify(tmp_path / "b").whole


def test_what_is_no_regular_file_stays_and_does_not_hold_up_an_export(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a")
    os.mkfifo(folder / "triton/ABC/pipe")
    (folder / "triton/ABC/link").symlink_to("/etc/passwd")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder / "triton/ABC"):
        listening.bind("socket")
    manifest, _ = packed(folder, tmp_path / "p.tar.xz")
    assert len(manifest.files) == len(FILES) + 2
    assert [one.files for one in cached.listed(tmp_path / "a", "x")] == [len(FILES) + 1]


def test_an_export_writes_through_no_link_and_no_pipe(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a")
    (tmp_path / "precious").write_text("precious")
    for name in (".p.tar.xz.partial", ".p.tar.xz.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    packed(folder, tmp_path / "p.tar.xz")
    assert (tmp_path / "precious").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".p")) == [
        ".p.tar.xz.partial",
        ".p.tar.xz.tmp",
    ]
    (tmp_path / "q.tar.xz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        packed(folder, tmp_path / "q.tar.xz")
    assert not (tmp_path / "nowhere").exists()


def test_two_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a")
    manifest = export.describe(folder, PROVENANCE)

    def write(_: int) -> str:
        try:
            return export.write(manifest, folder, tmp_path / "p.tar.xz")
        except ConfigError as error:
            assert "exists and is not overwritten" in str(error)
            return ""

    with ThreadPoolExecutor(8) as pool:
        [digest] = {*pool.map(write, range(16))} - {""}
    assert digest == hashlib.sha256((tmp_path / "p.tar.xz").read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "p.tar.xz"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache(tmp_path / "a")

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(export.plain_file, "open_regular", denied)
    with pytest.raises(HostError, match=r"cuda/3/3/\w+ cannot be read \(Permission denied\)"):
        export.describe(folder, PROVENANCE)


def test_a_list_is_made_while_compilers_remove_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache(tmp_path)
    walk = os.walk

    def removing(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for parent, folders, names in walk(top):
            if "kernel.ptx" in names:
                (folder / "triton/ABC/kernel.ptx").unlink()
            yield parent, folders, names

    monkeypatch.setattr(os, "walk", removing)
    assert [one.files for one in cached.listed(tmp_path, KEY["build"])] == [len(FILES)]


def test_nothing_behind_a_link_is_listed_or_pruned(tmp_path: Path) -> None:
    precious = cache(tmp_path / "elsewhere")
    root = tmp_path / "cache"
    (root / "0.31.0-aaaaaaaa").mkdir(parents=True)
    (root / "0.30.0-bbbbbbbb").symlink_to(precious.parents[1])
    (root / "0.31.0-aaaaaaaa/h200").symlink_to(precious.parent)
    (root / ".import-x").symlink_to(precious)
    assert cached.listed(root, "x") == []
    assert cached.prunable(root, "x", 0) == []


def test_large_files_are_never_held_in_memory(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a", {**FILES, "triton/__grp__x.json": bytes(96 << 20)})
    packed(folder, tmp_path / "p.tar.xz")
    tracemalloc.start()
    try:
        with (tmp_path / "p.tar.xz").open("rb") as file:
            place.place(file, "p", tmp_path / "b", folder_of(tmp_path / "b"))
        assert cached.verify(tmp_path / "b").whole
        assert tracemalloc.get_traced_memory()[1] < 90 << 20  # xz takes 64 MiB
    finally:
        tracemalloc.stop()
    assert (folder_of(tmp_path / "b") / "triton/__grp__x.json").stat().st_size == 96 << 20


def test_an_import_that_was_interrupted_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(cache(tmp_path / "a"), tmp_path / "p.tar.xz")
    data, root, put, done = (tmp_path / "p.tar.xz").read_bytes(), tmp_path / "b", place._put, []

    def interrupted(*arguments: Any) -> bool:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(put(*arguments))
        return True

    monkeypatch.setattr(place, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        imported(data, root)
    assert not list(root.glob(".import-*"))
    assert not (folder_of(root) / place.RECORDS).exists()
    monkeypatch.setattr(place, "_put", put)
    again = imported(data, root)
    assert (len(again.kept), len(again.written), again.before) == (3, len(FILES) - 1, False)
    assert cached.verify(root).whole
