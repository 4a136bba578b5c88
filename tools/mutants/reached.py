"""Which functions of a module each test calls, and how long it takes."""

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
    """The functions of the module that a test has called, by qualified name, and its CPU seconds."""

    functions: frozenset[str]
    seconds: float


def record(session: pytest.Session, path: str) -> Mapping[str, Reached]:
    """Run all tests of a session; return what each reaches, by its node id."""
    found: dict[str, Reached] = {}
    for item in session.items:
        called: set[str] = set()

        def enter(frame: FrameType, _event: str, _: Any, called: set[str] = called) -> None:
            if frame.f_code.co_filename == path:
                called.add(frame.f_code.co_qualname)

        began, traced = time.process_time(), sys.gettrace()
        sys.settrace(enter)
        try:
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        finally:
            sys.settrace(traced)
        found[item.nodeid] = Reached(frozenset(called), time.process_time() - began)
        if session.testsfailed:
            break
    return found
