"""
CPU that the supervisor takes to pass on and read vLLM's log: 15 ms for 1,000 lines is the budget. Run with `make bench`.

The lines come in pieces of 100, at most 5,000 a second: a storm is read in part only.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.supervisor.vllm_process import VllmProcess
from dsv4_serve.entrypoint.vllm_log.root_cause import LogNotes

BUDGET, LINES = 0.015, 50_000
LINE = (
    "(EngineCore pid=123) INFO 11-22 06:00:00 [loggers.py:1] Engine 000: Avg prompt throughput: 0.0 tokens/s,"
    " Avg generation throughput: 0.0 tokens/s, Running: 0 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.0%\n"
)
ENGINE = f"""
import sys, time
for _ in range({LINES // 100}):
    sys.stdout.write({LINE!r} * 100)
    sys.stdout.flush()
    time.sleep(0.02)
"""


def cpu() -> float:
    """Seconds of CPU that this process has taken."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def read() -> tuple[int, float]:
    """Return the lines read, and the seconds of CPU for each 1,000."""
    notes, lines = LogNotes(), 0

    def on_line(line) -> None:
        nonlocal lines
        lines += 1
        notes.feed(line)

    before = cpu()
    process = await VllmProcess.start([sys.executable, "-c", ENGINE], os.environ, on_line)
    await process.wait()
    await process.finish_log()
    return lines, (cpu() - before) * 1000 / lines


def test_a_thousand_lines(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lines, seconds = asyncio.run(read())
    capfd.readouterr()
    with capfd.disabled():
        print(f"\n{seconds * 1e3:.1f} ms of CPU for 1,000 lines of the log; load average {os.getloadavg()[0]:.1f}")
    assert lines == LINES
    assert seconds <= BUDGET
