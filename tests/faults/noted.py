"""What a fault looked like, noted for the table in docs/results/faults.md (tools/faults.py)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tests.support.replica import Replica

SETTINGS = {
    "supervise.poll": 1,
    "supervise.ready-grace": 3,
    "supervise.live-grace": 15,
    "supervise.idle-canary-every": 3,
    "supervise.drain-wait": 1,
    "supervise.stop-grace": 20,
}
"""Shorter than the defaults, so that no test waits for minutes."""
_FOLDER = re.compile(r"(?:/[^\s/]+)*/pytest-of-[^\s/]+/pytest-\d+/[^\s/:,;]+")
"""A test's own."""


def noted(fault: str, status: int, words: str, *, unready: float | None = None, ended: float | None = None) -> None:
    """Append a line of JSON to the file that RECORD_FAULTS names: seconds from the fault to not ready, and to the end."""
    if path := os.environ.get("RECORD_FAULTS"):
        seconds = {name: None if s is None else round(s, 1) for name, s in (("unready", unready), ("ended", ended))}
        line = {"fault": fault, **seconds, "status": status, "words": words}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def last_words(running: Replica) -> str:
    """The sentence and the root cause that it ended with, without the folders of the test."""
    ending = json.loads((running.run_folder / "last-exit.json").read_text())
    text = ending["sentence"] + (f" Root cause: {ending['root']}" if ending["root"] else "")
    return _FOLDER.sub("", text.replace(str(running.run_folder), "RUN").replace(str(running.port), "PORT"))


def cause(running: Replica) -> str:
    return str(json.loads((running.run_folder / "last-exit.json").read_text())["cause"])
