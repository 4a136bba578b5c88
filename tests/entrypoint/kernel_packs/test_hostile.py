"""Archives that somebody made by hand: each is refused, and nothing is written outside of the cache or into it."""

from __future__ import annotations

import lzma
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4_serve.entrypoint.errors import UserError
from dsv4_serve.entrypoint.kernel_packs import stream
from tests.support.examples import examples
from tests.support.packs import archive, file_of, folder_of, imported, manifest_of, member, tree

GOOD = file_of("triton/a/kernel.cubin", b"kernel")
ONE = [member(b"kernel")]


def refused(data: bytes, root: Path, match: str | None = None) -> None:
    """Assert that an archive is refused, and that the cache holds no file of it."""
    with pytest.raises(UserError, match=match):
        imported(data, root)
    assert [path for path, content in tree(root).items() if content is not None] == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_good_one_is_taken(root: Path) -> None:
    imported(archive(manifest_of([GOOD]), ONE), root)
    assert (folder_of(root) / GOOD["path"]).read_bytes() == b"kernel"


PATHS = (
    "../../../etc/cron.d/x",
    "/etc/passwd",
    "triton/../../../x",
    "triton/./x",
    "triton//x",
    "triton/",
    "triton",
    "packs/0000.json",
    "elsewhere/x",
    "triton/a\\b",
    "triton/a\x00b",
    "triton/a\nb",
    "triton/ü",
    "triton/" + "x" * 256,
    "triton/" + "x/" * 600,
    "TRITON/x",
    "",
)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_path_that_leads_elsewhere(root: Path, path: str) -> None:
    refused(archive(manifest_of([file_of(path, b"kernel")]), ONE), root, "manifest")


@pytest.mark.parametrize(
    "paths",
    [
        ("triton/a", "triton/a"),
        ("triton/A", "triton/a"),
        ("triton/b", "triton/a"),
        ("triton/a", "triton/a/b"),
        ("triton/A", "triton/a/b"),
    ],
    ids=["twice", "case", "order", "file and folder", "file and folder by case"],
)
def test_paths_that_contradict_each_other(root: Path, paths: tuple[str, str]) -> None:
    refused(archive(manifest_of([file_of(path, b"kernel") for path in paths]), ONE), root, "manifest")


def test_a_link_in_the_cache_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder_of(root).mkdir(parents=True)
    (folder_of(root) / "triton").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="is not a folder"):
        imported(archive(manifest_of([GOOD]), ONE), root)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_a_member_that_is_no_regular_file(root: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo(GOOD["sha256"])
    for target in ("", "/etc/passwd"):
        entry.type, entry.size, entry.linkname = kind, 6, target
        refused(archive(manifest_of([GOOD]), [(entry.tobuf(tarfile.USTAR_FORMAT), b"kernel")]), root, "regular file")


def test_members_that_are_not_those_of_the_manifest(root: Path) -> None:
    two = [GOOD, file_of("triton/b", b"second")]
    refused(archive(manifest_of(two), [member(b"second"), *ONE]), root, "in that order")
    refused(archive(manifest_of(two), ONE), root, "in that order")
    refused(archive(manifest_of([GOOD]), [*ONE, member(b"second")]), root, "more files")
    refused(archive(manifest_of([GOOD]), [*ONE, *ONE]), root, "more files")
    refused(archive(manifest_of([GOOD]), [member(b"kernel", "../x")]), root, "in that order")
    refused(archive(manifest_of([GOOD]), [member(b"nerkel", GOOD["sha256"])]), root, "does not have its hash")
    refused(archive(manifest_of([{**GOOD, "size": 7}]), ONE), root, "in that order")


def test_one_hash_with_two_sizes(root: Path) -> None:
    refused(archive(manifest_of([GOOD, {**file_of("triton/b", b"kernel"), "size": 1 << 30}]), ONE), root, "two sizes")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"more": 1},
        {"key": {"build": "..", "hardware": "h", "model": "m"}},
        {"key": {"build": "a/b", "hardware": "h", "model": "m"}},
        {"files": "x"},
        {"plans": {"a": "b"}},
    ],
)
def test_a_manifest_of_another_form(root: Path, change: dict[str, Any]) -> None:
    refused(archive({**manifest_of([GOOD]), **change}, ONE), root, "manifest")
    refused(archive([], []), root, "manifest")


def test_sizes_that_would_fill_the_disk_or_the_memory(root: Path) -> None:
    refused(archive(manifest_of([{**GOOD, "size": 1 << 36}]), ONE), root, "GB free")
    refused(archive(manifest_of([{**GOOD, "size": 1 << 37}]), ONE), root, "manifest")
    huge = stream.header("manifest.json", 1 << 30)
    refused(lzma.compress(huge + b" " * 1024), root, "larger than")
    memory = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 27}]
    refused(lzma.compress(stream.header("manifest.json", 0), filters=memory), root, "xz: Memory usage limit")
    refused(archive(manifest_of([GOOD]), ONE, end=bytes(1 << 20)), root, "after its end")


def test_something_after_the_end_or_between(root: Path) -> None:
    good = archive(manifest_of([GOOD]), ONE)
    refused(good + b"x", root, "after its end")
    refused(good + good, root, "after its end")
    refused(archive(manifest_of([GOOD]), ONE, end=b"\x00" * 512 + b"x" * 512), root, "after its end")
    padded = lzma.decompress(good).replace(b"kernel" + bytes(506), b"kernel" + b"x" * 506)
    refused(lzma.compress(padded), root, "between two members")


def test_every_cut_is_noticed(root: Path) -> None:
    good = archive(manifest_of([GOOD]), ONE)
    for length in range(len(good)):
        refused(good[:length], root)
    raw = lzma.decompress(good)
    for length in range(0, len(raw), 256):
        refused(lzma.compress(raw[:length], preset=0), root)


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_a_changed_byte_is_refused_or_makes_another_valid_pack(data: st.DataObject) -> None:
    """Whoever wrote the manifest may name other paths: that is why a pack is pinned by its digest."""
    raw = bytearray(lzma.decompress(archive(manifest_of([GOOD]), ONE)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "cache")
        try:
            placed = imported(lzma.compress(bytes(raw), preset=0), root)
        except UserError:
            assert [p for p, content in tree(root).items() if content is not None] == []
        else:
            [file] = placed.manifest.files
            assert (folder_of(root) / file.path).read_bytes() == b"kernel"
            assert set(root.rglob("*.cubin")) <= {folder_of(root) / file.path}


PART = st.text(st.sampled_from("aA.-_/\\ \x00é~"), max_size=5)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["triton", "cuda", "vllm", "starts", "..", "", "packs"]), PART, PART), max_size=4
    )
)
def test_whatever_paths_a_pack_has_nothing_leaves_the_folder(parts: list[tuple[str, str, str]]) -> None:
    files = sorted((file_of("/".join(path), b"kernel") for path in parts), key=lambda file: file["path"])
    with tempfile.TemporaryDirectory() as outer:
        root = Path(outer, "a/b/cache")
        try:
            placed = imported(archive(manifest_of(files), ONE if files else []), root)
        except UserError:
            assert [p for p, content in tree(Path(outer)).items() if content is not None] == []
        else:
            written = {folder_of(root) / file["path"] for file in files}
            there = {path for path in Path(outer).rglob("*") if path.is_file()}
            assert {path for path in there if path.parent.name != "packs"} == written
            assert len(placed.written) == len(files)
