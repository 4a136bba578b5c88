"""Files that somebody else wrote: what is no regular file, too large or hostile ends at once, in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint import plain_file
from dsv4_serve.entrypoint.errors import HostError
from dsv4_serve.entrypoint.qualify import kept as qualify_kept
from dsv4_serve.entrypoint.terminal import printable
from dsv4_serve.entrypoint.tune import run as tune_run
from dsv4_serve.entrypoint.weights import hub_files, prefetch
from tests.support import command
from tests.support.patience import hang_ends_the_run, slowness


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty", "/proc/self/fd", "pipe", "a\0b"])
def test_what_is_no_regular_file_is_refused_at_once(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with hang_ends_the_run(), pytest.raises(OSError, match=r"Errno") as caught:
        plain_file.read(tmp_path / path)
    assert caught.value.strerror


def test_a_file_up_to_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1 << 20))
    assert len(plain_file.read(tmp_path / "x")) == 1 << 20
    (tmp_path / "x").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(OSError, match="larger than 1 MiB"):
        plain_file.read(tmp_path / "x")
    assert len(plain_file.read(tmp_path / "x", 2)) == (1 << 20) + 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"\\ud800": 1}', "half of a surrogate pair"),
        (b'["\\uDFFF"]', "half of a surrogate pair"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"9" * 5000, "limit"),
        (b"", "Expecting value"),
    ],
)
def test_hostile_json_is_a_value_error(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        plain_file.parse_json(data)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_sound_json_is_read(value: object) -> None:
    assert plain_file.parse_json(json.dumps(value).encode()) == value


@given(st.text(st.characters()))
def test_printable_text_moves_no_cursor_and_can_be_written(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not any((ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 for c in shown)
    assert printable(shown) == shown


def test_a_pipe_in_a_cache_a_result_folder_or_among_shards_does_not_block(tmp_path: Path) -> None:
    refs = tmp_path / "models--o--n" / "refs"
    refs.mkdir(parents=True)
    for pipe in (refs / "main", tmp_path / "model.safetensors"):
        os.mkfifo(pipe)
    with hang_ends_the_run():
        assert hub_files.cached_folder("o/n", tmp_path) is None
        assert qualify_kept.read(refs / "main") == {}
        with pytest.raises(HostError, match="a pipe without a reader"):
            tune_run.check_writable(refs / "main")
        with pytest.raises(HostError, match="not a regular file"):
            prefetch.prefetch(tmp_path, memory=1 << 30)


COMMANDS = {
    "profile": ["explain", "--hardware", "h200", "--profile", "mine"],
    "key": ["explain", "--hardware", "h200"],
    "config": ["explain", "--hardware", "h200", "--model", "checkpoint"],
    "shard": ["doctor", "--hardware", "h200", "--model", "w4a16=checkpoint"],
    "index": ["doctor", "--hardware", "h200", "--model", "w4a16=checkpoint"],
    "manifest": ["weights", "verify", "o/n", "--to", "checkpoint"],
    "result": ["report", "--from", "results", "--out", "page.html"],
    "patch": ["patch", "verify", "--series", "series"],
}
PLACES = {
    "profile": "profiles/mine.toml",
    "key": "key",
    "config": "checkpoint/config.json",
    "shard": "checkpoint/model.safetensors",
    "index": "checkpoint/model.safetensors.index.json",
    "manifest": "checkpoint/dsv4-weights.json",
    "result": "results/bench/x.json",
    "patch": "series/series",
}


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "zeros", "deep", "surrogate"])
@pytest.mark.parametrize("place", PLACES)
def test_a_command_ends_with_one_sentence(place: str, kind: str, tmp_path: Path) -> None:
    for folder in ("profiles", "checkpoint", "results/bench", "series"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "checkpoint/config.json").write_text('{"model_type": "deepseek_v4"}')
    path = tmp_path / PLACES[place]
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(
            b"[" * 100_000 if kind == "deep" else b'{"kind": "bench\\ud800", "\\ud800\x1b[31m": ["\\udfff"]}'
        )
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    env |= {"HF_HUB_OFFLINE": "1", "DSV4_PROFILES": str(tmp_path / "profiles")}
    env |= {"API_KEY_FILE": str(path)} if place == "key" else {}
    run = command.run(*COMMANDS[place], cwd=tmp_path, env=env, timeout=20 * slowness())
    output = run.stdout + run.stderr
    assert run.returncode in (1, 64, 65, 69, 78), output
    assert "Traceback" not in output
    assert "\x1b" not in output


def test_a_file_is_written_whatever_stood_there(tmp_path: Path) -> None:
    file = tmp_path / "out"
    plain_file.write_text(file, "longer than what follows")
    plain_file.write_text(file, "é \ud800")
    assert file.read_text(encoding="utf-8") == "é \\ud800"
    plain_file.write_text(file, "x", append=True)
    assert file.read_text(encoding="utf-8") == "é \\ud800x"
    plain_file.write_text(Path("/dev/null"), "x")


def test_a_pipe_without_a_reader_is_refused_at_once_and_one_with_a_reader_is_written(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with hang_ends_the_run():
        with pytest.raises(OSError, match="a pipe without a reader"):
            plain_file.write_text(pipe, "x")
        with (tmp_path / "got").open("wb") as got, subprocess.Popen(["cat", pipe], stdout=got):
            while True:
                try:
                    plain_file.write_text(pipe, "x" * 200_000)
                    break
                except OSError:  # cat has not opened it yet
                    time.sleep(0.01)
        assert (tmp_path / "got").read_bytes() == b"x" * 200_000


@pytest.mark.parametrize("path", ["", "a\0b", "no/such", "/dev/full", "loop"])
def test_what_cannot_be_written_is_an_error_with_a_reason(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Errno") as caught:
        plain_file.write_text(tmp_path / path, "x" * 10_000)
    assert caught.value.strerror
