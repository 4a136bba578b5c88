"""The run directory: where it is, and that one server holds it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.errors import HostError
from dsv4_serve.entrypoint.supervisor import atomic_file, run_folder
from tests.support.patience import slowness


def test_two_servers_of_one_host_differ_in_their_health_port(tmp_path: Path) -> None:
    assert run_folder.choose(tmp_path / "named", {}, 8001) == tmp_path / "named"
    home = {"HOME": str(tmp_path)}
    assert run_folder.choose(None, home, 8001) == tmp_path / ".local/state/dsv4/8001"
    assert run_folder.choose(None, home | {"XDG_STATE_HOME": f"{tmp_path}/state"}, 9) == tmp_path / "state/dsv4/9"


def test_temporary_files_are_the_place_where_the_home_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_folder.choose(None, {"HOME": f"{tmp_path}/file"}, 8001).is_relative_to(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(HostError, match="set DSV4_RUN_DIR"):
        run_folder.choose(None, {"HOME": f"{tmp_path}/file"}, 8001)


def hold_it(folder: Path, held: multiprocessing.Event, done: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    with run_folder.owned(folder):
        held.set()
        done.wait(20 * slowness())


def test_two_servers_cannot_share_a_run_directory(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    held, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold_it, args=(tmp_path, held, done))
    other.start()
    assert held.wait(20 * slowness())
    with pytest.raises(HostError, match="in use by another `dsv4 serve`; set DSV4_RUN_DIR"), run_folder.owned(tmp_path):
        pass
    done.set()
    other.join(10 * slowness())
    with run_folder.owned(tmp_path):
        pass


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot write to run directory"), run_folder.owned(tmp_path / "file" / "run"):
        pass


def test_a_lock_that_is_a_pipe_and_a_state_file_that_is_one_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    os.mkfifo(tmp_path / run_folder.LAST_EXIT)
    with run_folder.owned(tmp_path):
        assert atomic_file.write(tmp_path / run_folder.LAST_EXIT, "{}")
    assert (tmp_path / run_folder.LAST_EXIT).read_text() == "{}"
