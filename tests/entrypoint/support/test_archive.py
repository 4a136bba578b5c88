"""A support bundle holds what can be had, and says why the rest is missing."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.errors import ConfigError, HostError
from dsv4_serve.entrypoint.support import archive


def fails() -> str:
    raise HostError("the driver does not answer; load it")


def text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return file.read().decode()


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as found:
        return {m.name.partition("/")[2]: text(found, m) for m in found.getmembers()}


def test_a_part_that_fails_does_not_end_the_bundle(tmp_path: Path) -> None:
    parts = {"a.json": lambda: {"x": "key-1234"}, "b.json": fails, "c.txt": lambda: None, "d.txt": lambda: "text"}
    lines = archive.write(tmp_path / "out.tar.gz", parts, {"key-1234"}, "")
    files = contents(tmp_path / "out.tar.gz")
    assert set(files) == {"a.json", "d.txt", "README.txt"}
    assert json.loads(files["a.json"]) == {"x": "***"}
    assert "b.json: not included: the driver does not answer; load it" in lines
    assert "c.txt: not included: there is none" in lines
    assert all(line in files["README.txt"] for line in lines)


def test_a_reason_is_redacted_too(tmp_path: Path) -> None:
    def leaks() -> str:
        raise HostError("key-1234 is not valid")

    assert archive.write(tmp_path / "out.tar.gz", {"a": leaks}, {"key-1234"}, "") == [
        "a: not included: *** is not valid"
    ]


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.tar.gz").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        archive.write(tmp_path / "out.tar.gz", {}, set(), "")
    assert (tmp_path / "out.tar.gz").read_text() == "mine"


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot write"):
        archive.write(tmp_path / "none" / "out.tar.gz", {}, set(), "")
