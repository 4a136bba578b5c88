"""A log that is too much, or that cannot be written any more: probes answer, signals are heard, memory stays where it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from tests.support.patience import slowness
from tests.support.replica import Start, fill

pytestmark = [pytest.mark.process, pytest.mark.slow]
SECONDS = float(os.environ.get("STORM_SECONDS", "8"))
MEMORY = 150 << 20
LIVE = 1.0  # seconds


def written(process: psutil.Process) -> int:
    """Bytes that a process has written, its log included."""
    lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def test_a_storm_of_lines_starves_nothing(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with start("storm", LOG="/dev/null") as running:
        running.until(running.ready, 120, "ready in a storm")
        process = psutil.Process(running.process.pid)
        before, began, cpu = written(process), time.monotonic(), sum(process.cpu_times()[:2])
        slowest, memory = 0.0, 0
        while time.monotonic() - began < SECONDS:
            asked = time.monotonic()
            assert running.ask("/livez", timeout=30 * slowness())[0] == 200
            slowest = max(slowest, time.monotonic() - asked)
            memory = max(memory, process.memory_info().rss)
            time.sleep(0.1)
        seconds = time.monotonic() - began
        rate = (written(process) - before) / seconds
        share = (sum(process.cpu_times()[:2]) - cpu) / seconds
        running.stop()
        status, took = running.until_ended(60)
    with capsys.disabled():
        print(
            f"\n{seconds:.0f} s at {rate / 1e6:.0f} MB/s: /livez {slowest * 1e3:.0f} ms at most,"
            f" {memory / 2**20:.0f} MiB, {share:.0%} of a core, SIGTERM took {took:.1f} s,"
            f" load {os.getloadavg()[0]:.0f}"
        )
    assert status == 0
    assert memory < MEMORY
    assert slowest < LIVE * slowness()
    assert rate > 1e6  # it was a storm


def test_a_log_on_a_full_disk_ends_nothing(start: Start, small_disk: Path) -> None:
    with start(LOG=str(small_disk / "log")) as running:
        running.until_ready(30)
        fill(small_disk)
        size = running.log.stat().st_size
        stream = running.stream(20)
        running.until(lambda: stream.done or bool(stream.error), 30, "a stream on a full disk")
        assert stream.done, stream.error
        assert running.ready(), running.ask("/readyz")[1]
        running.stop()
        assert running.until_ended(30)[0] == 0
        assert running.last_exit()["cause"] == "drained"
        assert running.log.stat().st_size - size < 4096  # what was left of a page
