"""A folder for temporary files of a run, which is removed after it with whatever a killed process left there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

FOLDER = pytest.StashKey[str]()
BEFORE = pytest.StashKey[str | None]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put TMPDIR into a folder of its own; `tmp_path` stays where it was."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker uses that of the process which started it
        config.stash[BEFORE] = os.environ.get("TMPDIR")
        config.stash[FOLDER] = tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="dsv4-")
        Path(tempfile.tempdir).chmod(0o1777)  # as /tmp: some tests become another user


def remove_folder(config: pytest.Config) -> None:
    """Remove it when the run ends; `make mutants` goes on in this process."""
    if folder := config.stash.get(FOLDER, ""):
        shutil.rmtree(folder, ignore_errors=True)
        tempfile.tempdir = None
        before = config.stash[BEFORE]
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
