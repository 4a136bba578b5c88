"""Key files: what is valid, what is refused, and how a change is taken over."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint import key_file
from dsv4_serve.entrypoint.api_key import key_in
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.key_file import KeyFile, KeyFileError, KeyHolder, digest, parse
from tests.support.key_files import REFUSED, TAKEN


@pytest.mark.parametrize(("data", "expected"), TAKEN)
def test_files_that_are_taken(data: bytes, expected: list[tuple[str, str, int | None, int | None]]) -> None:
    found = [(one.holder.name, one.key, one.holder.per_minute, one.holder.concurrent) for one in parse(data)]
    assert found == expected


@pytest.mark.parametrize(("data", "why"), REFUSED)
def test_files_that_are_refused(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=why) as caught:
        parse(data)
    assert "geheim" not in str(caught.value)
    (tmp_path / "keys").write_bytes(data)
    with pytest.raises(ConfigError, match=f"^here: .*{why}"):
        key_in(str(tmp_path / "keys"), "here")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_key_file_or_refused(data: bytes) -> None:
    try:
        lines = parse(data)
    except KeyFileError:
        return
    assert lines
    assert all(line.key.isascii() and line.key.isprintable() and " " not in line.key for line in lines)


ONE, TWO = "alice a-key-of-0123456789\n", "alice a-key-of-0123456789\nbob b-key-of-0123456789 5\n"
NAMES = {"alice", "bob"}


class Kept:
    """A key file that is looked at now, whatever the time, and what it told."""

    def __init__(self, path: Path) -> None:
        self.path, self.messages = path, list[str]()
        self.file = KeyFile(path, self.messages.append)

    def write(self, text: str, age: float = 10) -> None:
        self.path.write_text(text)
        then = time.time() - age
        os.utime(self.path, (then, then))

    def names(self) -> set[str]:
        self.file._next = 0
        return {holder.name for holder in self.file.current().values()}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "keys").write_text(ONE)
    return Kept(tmp_path / "keys")


def test_a_change_is_taken_over(kept: Kept) -> None:
    kept.write(TWO)
    assert kept.names() == NAMES
    assert kept.messages == [f"key file {kept.path}: read again, 2 keys; names added: bob; removed: none."]
    assert kept.file.current()[digest(b"b-key-of-0123456789")] == KeyHolder("bob", 5)
    kept.write(ONE)
    assert kept.names() == {"alice"}


def test_a_file_that_is_still_being_written_waits(kept: Kept) -> None:
    kept.write(TWO, age=0)
    assert kept.names() == {"alice"}
    assert kept.file._next < time.monotonic() + key_file.SETTLED + 0.1
    kept.write(TWO)
    assert kept.names() == NAMES


def test_a_secret_that_kubernetes_swaps(tmp_path: Path) -> None:
    for number, text in enumerate((ONE, TWO)):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}/keys").write_text(text)
        os.utime(tmp_path / f"..{number}/keys", (1, 1))
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "keys").symlink_to("..data/keys")
    kept = Kept(tmp_path / "keys")
    (tmp_path / "..tmp").symlink_to("..1")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert kept.names() == NAMES


def test_a_change_that_is_not_valid_keeps_the_keys_and_is_told_once(kept: Kept) -> None:
    kept.write("alice geheim\n")
    assert [kept.names() for _ in range(3)] == [{"alice"}] * 3
    (message,) = kept.messages
    assert message.startswith(f"KEY FILE NOT VALID: {kept.path}: line 1: the key is weak")
    assert "geheim" not in message
    kept.path.unlink()
    assert [kept.names() for _ in range(3)] == [{"alice"}] * 3
    assert "No such file" in kept.messages[-1]
    os.mkfifo(kept.path)
    assert kept.names() == {"alice"}
    assert "not a regular file" in kept.messages[-1]
    kept.path.unlink()
    kept.write(TWO)
    assert kept.names() == NAMES
    assert len(kept.messages) == 4


def test_a_file_that_broke_before_the_first_read_has_no_key_until_it_is_mended(tmp_path: Path) -> None:
    messages: list[str] = []
    path = tmp_path / "keys"
    with pytest.raises(FileNotFoundError):
        KeyFile(path, messages.append)
    file = KeyFile(path, messages.append, required=False)
    assert file.current() == {}
    assert messages == [f"KEY FILE NOT VALID: {path}: No such file or directory. No key of it is valid; mend it."]
    path.write_text(ONE)
    os.utime(path, (1, 1))
    file._next = 0.0
    assert [one.name for one in file.current().values()] == ["alice"]


def test_it_is_not_read_at_every_request(kept: Kept) -> None:
    kept.names()
    kept.write(TWO)
    assert len(kept.file.current()) == 1
