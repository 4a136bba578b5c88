"""One command at a time in a folder."""

import pytest

from dsv4_serve.entrypoint import folder_lock
from dsv4_serve.entrypoint.errors import HostError


def test_a_second_command_is_told_and_a_later_one_goes_on(tmp_path):
    refused = pytest.raises(HostError, match=r"Another `dsv4 x` works in .*; wait for it, or stop it\.")
    with folder_lock.locked(tmp_path, "`dsv4 x`"), refused, folder_lock.locked(tmp_path, "`dsv4 x`"):
        pytest.fail("both work in it")
    with folder_lock.locked(tmp_path, "`dsv4 x`"):
        assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_does_not_matter(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
    with folder_lock.locked(tmp_path, "`dsv4 x`"):
        pass
