"""The folder for temporary files of a run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import temporary


@pytest.mark.parametrize("before", [None, "/var/tmp"])
def test_it_goes_with_the_run_and_what_comes_after_it_has_the_folder_of_before(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("TMPDIR") if before is None else monkeypatch.setenv("TMPDIR", before)
    config: Any = SimpleNamespace(stash=pytest.Stash())
    temporary.pytest_configure(config)
    folder = Path(tempfile.gettempdir())
    assert os.environ["TMPDIR"] == str(folder) == config.stash[temporary.FOLDER]
    temporary.remove_folder(config)
    assert not folder.exists()
    assert os.environ.get("TMPDIR") == before
    assert tempfile.gettempdir() == (before or "/tmp")
