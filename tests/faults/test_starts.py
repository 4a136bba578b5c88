"""Starts that cannot go well, or that somebody ends."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from tests.faults.noted import cause, last_words, noted
from tests.support.replica import Replica, Start, fill, leaked_memory

pytestmark = pytest.mark.slow
NEVER = ("--speculative-config.prompt_lookup_min", "30", "--speculative-config.prompt_lookup_max", "30")
"""Settings of the n-gram drafter with which it never finds anything to draft."""


def ended(running: Replica, fault: str, expected: int, seconds: float = 200) -> str:
    """Wait for the end, note it, and return the last words."""
    began = time.monotonic()
    status, _ = running.until_ended(seconds)
    words = last_words(running)
    noted(fault, status, words, ended=time.monotonic() - began)
    assert status == expected, running.log_text()[-3000:]
    return words


@pytest.mark.everyday
def test_a_port_in_use_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with start(PORT=str(port)) as running:
            words = ended(running, "port-held", 69)
            assert "PORT" in words  # the number, as last_words writes it
            assert str(port) in running.log_text()


@pytest.mark.everyday
def test_a_checkpoint_that_is_not_there_is_named(start: Start, tmp_path: Path) -> None:
    with start(MODEL=f"demo={tmp_path / 'nothing'}") as running:
        assert "/nothing" in ended(running, "checkpoint-missing", 78)


def test_sigterm_while_loading_ends_at_once_and_leaves_nothing(start: Start) -> None:
    before = leaked_memory()
    with start() as running:
        running.until(lambda: '"loading weights"' in running.ask("/startupz?format=json")[1], 200, "loading")
        began = time.monotonic()
        running.stop()
        status, _ = running.until_ended(30)
        noted("stopped-while-loading", status, last_words(running), ended=time.monotonic() - began)
        assert (status, cause(running)) == (0, "drained")
        assert running.files() == []
    assert leaked_memory() <= before


def test_a_drafter_that_drafts_nothing_is_refused(start: Start) -> None:
    with start(*NEVER) as running:
        assert "nothing was drafted" in ended(running, "draft-nothing", 85)


def test_a_drafter_that_drafts_nothing_is_left_out_where_the_profile_says_so(start: Start) -> None:
    with start(*NEVER, DSV4_GATE_BELOW_FLOOR="degrade") as running:
        began = time.monotonic()
        running.until_ready(400)
        plan = json.loads(running.ask("/plan")[1])
        assert "--speculative-config" not in plan["argv"]
        body = running.ask("/readyz")[1]
        assert "warn: draft-gate: degraded" in body
        warning = next(line for line in running.messages() if "WARNING" in line and "drafted" in line)
        noted("draft-nothing-degrade", 0, warning.removeprefix("dsv4: "), ended=time.monotonic() - began)


def test_caches_on_a_full_disk_are_seen_before_the_start_and_can_be_overridden(start: Start, small_disk: Path) -> None:
    fill(small_disk)
    full = {"VLLM_CACHE_ROOT": str(small_disk / "cache"), "XDG_CACHE_HOME": str(small_disk)}
    with start(**full) as running:
        assert "cache-space" in ended(running, "cache-full", 69)
    with start(DSV4_SKIP="cache-space", **full) as running:
        running.until_ready(300)
        line = next(line for line in running.messages() if "ready " in line)
        noted("cache-full-skipped", 0, line.removeprefix("dsv4: "))
