"""Which lines of a module each test runs, and how long it takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest


@dataclass(frozen=True)
class Reached:
    """The lines of the module that a test has run, and its CPU seconds."""

    lines: frozenset[int]
    seconds: float


def record(session: pytest.Session, path: str) -> Mapping[str, Reached]:
    """Run all tests of a session; return what each reaches, by its node id."""
    found: dict[str, Reached] = {}
    for item in session.items:
        lines: set[int] = set()

        def inside(frame: FrameType, event: str, _: Any, lines: set[int] = lines) -> Any:
            if event == "line":
                lines.add(frame.f_lineno)
            return inside

        def enter(frame: FrameType, _event: str, _: Any) -> Any:
            return inside if frame.f_code.co_filename == path else None

        began, traced = time.process_time(), sys.gettrace()
        sys.settrace(enter)
        try:
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        finally:
            sys.settrace(traced)
        found[item.nodeid] = Reached(frozenset(lines), time.process_time() - began)
        if session.testsfailed:
            break
    return found
