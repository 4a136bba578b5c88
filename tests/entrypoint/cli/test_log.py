"""With `DSV4_LOG_FORMAT=json` whatever this process writes on stderr is one object a line."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from dsv4_serve.entrypoint.cli import log
from dsv4_serve.entrypoint.cli.output import LogFormat


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(LogFormat, "json", True)
    for owner in (sys, threading):
        monkeypatch.setattr(owner, "excepthook", owner.excepthook)
    for logger in (logging.getLogger(), logging.getLogger("dsv4_serve")):
        monkeypatch.setattr(logger, "handlers", logger.handlers)
    log.to_stderr()
    yield
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("as_json")
def test_errors_of_threads_and_warnings_are_objects_too(capsys: pytest.CaptureFixture[str]) -> None:
    thread = threading.Thread(target=int, args=("missing",))
    thread.start()
    thread.join()
    warnings.warn("a library is old", stacklevel=1)
    raised, warned = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert raised["level"] == "CRITICAL"
    assert raised["message"].splitlines()[-1].startswith("ValueError: invalid literal")
    assert warned["level"] == "WARNING"
    assert "a library is old" in warned["message"]
