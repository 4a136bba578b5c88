"""A replica under load: a full disk loses log lines only, a drain loses nothing, and an engine killed in it is told."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.faults.noted import cause, last_words, noted
from tests.support.replica import Start, fill

pytestmark = pytest.mark.slow
STREAMS, TOKENS = 200, 200
"""A plain run drains fewer: tests/support/running_demo.py ends its replica while it streams."""


def test_a_full_disk_ends_nothing_and_200_streams_are_drained(start: Start, small_disk: Path) -> None:
    with start(folder=small_disk, MAX_NUM_SEQS="64") as running:
        running.until_ready(300)
        fill(small_disk)
        last = running.stream(50)
        running.until(lambda: last.done, 60, "a stream on a full disk")
        time.sleep(5)
        assert running.ready(), running.ask("/readyz")[1]
        (small_disk / "filler").unlink()
        noted("disk-full", 0, "nothing: it serves on, and lines of the log are lost")

        streams = [running.stream(TOKENS, f"Story {number}:") for number in range(STREAMS)]
        running.until(lambda: all(stream.accepted.is_set() for stream in streams), 120, "every stream accepted")
        running.stop()
        began = time.monotonic()
        running.until(lambda: running.ask("/readyz/accepting")[0] == 503, 1, "not ready at once")
        unready = time.monotonic() - began
        status, _ = running.until_ended(200)
        ended = time.monotonic() - began
        running.until(lambda: all(stream.done or stream.error for stream in streams), 30, "every stream ended")
        lost = [s for s in streams if s.error or not s.done or s.got != TOKENS]
        assert lost == []
        assert (status, cause(running)) == (0, "drained")
        noted("drained", status, last_words(running), unready=unready, ended=ended)


def test_an_engine_that_is_killed_while_it_drains_is_no_drain(start: Start) -> None:
    with start(MAX_NUM_SEQS="16") as running:
        running.until_ready(300)
        streams = [running.stream(10 * TOKENS, f"Story {number}:") for number in range(STREAMS)]
        running.until(lambda: any(stream.got for stream in streams), 120, "streams")
        running.stop()
        running.until(lambda: "EngineCore: start mode=drain" in running.log_text(), 60, "the drain")
        running.member("VLLM::EngineCore").kill()
        status, _ = running.until_ended(200)
        assert (status, cause(running)) == (82, "engine-died")
        cut = re.match(r"(\d+) requests were cut: vLLM's engine died while it was stopped", last_words(running))
        assert cut
        assert int(cut[1]) == sum(stream.got < 10 * TOKENS for stream in streams)
