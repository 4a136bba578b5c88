"""A start imports what the image and the operator give it, and goes on without what does not fit."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.kernel_packs import at_start, place, registry
from tests.support.packs import FILES, KEY, cache, folder_of, packed, tree

PINNED = "oci://registry.example/kernels@sha256:" + "a" * 64


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    (tmp_path / "packs").mkdir()
    packed(cache(tmp_path / "a"), tmp_path / "packs/one.tar.xz")
    return tmp_path / "packs"


def taken(where: list[str], root: Path, caplog: pytest.LogCaptureFixture, **key: str) -> list[str]:
    """Import, and return what was logged."""
    caplog.clear()
    caplog.set_level(logging.INFO)
    at_start.take(where, root, root.joinpath(*{**KEY, **key}.values()))
    return [record.getMessage() for record in caplog.records]


def test_the_packs_of_a_folder_are_imported_once(packs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "b"
    [line] = taken([str(packs)], root, caplog)
    assert line.startswith(f"kernel pack: {len(FILES) + 2} files from ")
    assert (folder_of(root) / "triton/ABC/kernel.cubin").exists()
    assert taken([str(packs)], root, caplog) == []


def test_what_does_not_fit_ends_nothing(packs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "b"
    [line] = taken([str(packs)], root, caplog, hardware="b300")
    assert "nothing was changed" in line
    assert [path for path in tree(root) if path.endswith("cubin")] == [] if root.exists() else True
    (packs / "broken.tar.xz").write_bytes(b"not xz")
    (packs / "notes.txt").write_text("other files are not read")
    lines = taken([str(tmp_path / "none"), str(packs)], root, caplog)
    assert [line.split(":")[0] for line in lines] == ["note", "note", "kernel pack"]


def test_a_disk_that_is_full_ends_nothing(
    packs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(place, "place", full)
    [line] = taken([str(packs)], tmp_path / "b", caplog)
    assert line.startswith("note: kernel pack: [Errno 28] No space left on device")


def test_a_pinned_reference_is_pulled_once(
    packs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulls = []

    def pull(reference: registry.Reference, file: object) -> None:
        pulls.append(str(reference))
        file.write((packs / "one.tar.xz").read_bytes())  # type: ignore[attr-defined]

    monkeypatch.setattr(registry, "pull", pull)
    root = tmp_path / "b"
    assert len(taken([PINNED], root, caplog)) == 1
    assert taken([PINNED], root, caplog) == []
    assert pulls == [PINNED]


def test_only_pinned_references_and_folders_are_sources(tmp_path: Path) -> None:
    assert at_start.sources("", tmp_path / "none") == []
    assert at_start.sources(f"/a, {PINNED},", tmp_path) == [str(tmp_path), "/a", PINNED]
    for unpinned in ("oci://registry.example/kernels:v1", "https://host/pack.tar.xz"):
        with pytest.raises(ConfigError, match="is not pinned"):
            at_start.sources(unpinned, tmp_path)
