"""
Every schedule at every number of tokens, in a process that may die: a kernel that faults takes its process with it.

The parent starts the process again without the schedule that was being measured. Rows go to a file of JSON lines at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qualification.gpu.expert_kernels import schedules
from qualification.gpu.expert_kernels.layers import PEAK, TOP_K
from qualification.gpu.expert_kernels.schedules import Schedule

TOKENS = (32, 8, 128, 2, 16, 64, 4, 24, 96, 6, 256, 384)
"""Of a step, those of most worth first. A decode step has one for each request and one for each drafted token."""
SOUNDED = 3
"""After so many of TOKENS, schedules that were never near the best are left out."""
NEAR = 1.35
"""How much slower than the best a schedule may be and stay in."""
MOST_ERROR = 0.02
"""Largest difference to HUMMING's own choice, as a share of the largest value: BF16 rounds to 0.004."""
PATIENCE = 90.0
"""Seconds without a word after which a process is ended: a kernel that never returns."""
MOST_STARTS = 8

Row = dict[str, Any]


class Measures(Protocol):
    """What bench.Bench does on a GPU."""

    def step(self, tokens: int) -> Any: ...
    def load(self, schedule: Schedule) -> None: ...
    def result(self, schedule: Schedule, step: Any) -> Any: ...
    def timed(self, schedule: Schedule, step: Any, replays: int) -> list[float]: ...
    def aligning(self, step: Any, rows: int, replays: int) -> list[float]: ...


@dataclass
class Record:
    """A file of rows, and beside it what is being measured now."""

    file: Path
    layer: str

    @property
    def now(self) -> Path:
        """Return the file that says what is being measured."""
        return self.file.with_suffix(".now")

    def rows(self) -> list[Row]:
        """Return the rows of this layer that were written before; a line that was cut is left out."""
        return [row for row in read(self.file) if row["layer"] == self.layer]

    def begin(self, what: str) -> None:
        """Say what is being measured."""
        self.now.write_text(f"{self.layer} {what}", encoding="utf-8")

    def add(self, **row: Any) -> Row:
        """Write a row at once."""
        made = {"layer": self.layer, **row}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(made) + "\n")
        return made


def read(file: Path) -> list[Row]:
    """Return the rows of a file; a line that was cut is left out."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [row for line in lines if (row := parsed(line)) is not None]


def parsed(line: str) -> Row | None:
    """Return a line's row, or None where it was cut."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "layer" in row else None


def everything(
    bench: Measures,
    record: Record,
    tried: Sequence[Schedule],
    own: Mapping[int, Schedule],
    *,
    replays: int,
    until: float,
    middle: Any,
    difference: Any,
) -> None:
    """Measure schedules and HUMMING's own at each number of tokens until a time of the monotonic clock."""
    before = record.rows()
    lost = {row["lost"] for row in before if "lost" in row}
    done = {(row["tokens"], row["name"]) for row in before if "us" in row}
    times = {(row["tokens"], row["name"]): row["us"] for row in before if "us" in row}
    loaded: set[str] = set()
    for place, (tokens, mine) in enumerate(own.items()):
        record.begin(f"{tokens} inputs")
        step = bench.step(tokens)
        expected = bench.result(mine, step)
        left = [mine, *(one for one in remaining(tried, times, place) if one != mine)]
        for one in left:
            name = schedules.name(one)
            if name in lost or (tokens, name) in done:
                continue
            if time.monotonic() > until:
                record.add(cut=True, tokens=tokens)
                return
            record.begin(name)
            try:
                if name not in loaded:
                    bench.load(one)
                    loaded.add(name)
                error = difference(bench.result(one, step), expected)
                us, spread = middle(bench.timed(one, step, replays))
            except (AssertionError, ValueError, RuntimeError) as refused:
                if "CUDA" in str(refused):  # nothing works in this process any more
                    raise
                record.add(lost=name, why=f"{type(refused).__name__}: {refused}"[:300])
                lost.add(name)
                continue
            rate = step.bytes_moved / us * 1e6
            times[tokens, name] = us
            record.add(
                tokens=tokens, rows=tokens * TOP_K, name=name, schedule=one, own=one == mine, us=round(us, 3),
                spread=round(spread, 4), error=round(error, 5), bytes=round(step.bytes_moved), gb_s=round(rate / 1e9),
                share=round(rate / PEAK, 3),
            )  # fmt: skip
        record.begin(f"{tokens} again")
        us, spread = middle(bench.timed(mine, step, replays))
        record.add(tokens=tokens, again=round(us, 3), spread=round(spread, 4))
        us, _ = middle(bench.aligning(step, mine["block_shape"][0], replays))
        record.add(tokens=tokens, align_us=round(us, 3))


def remaining(tried: Sequence[Schedule], times: Mapping[tuple[int, str], float], place: int) -> list[Schedule]:
    """Return the schedules that were near the best of their step at least once, after the first steps; all before."""
    if place < SOUNDED:
        return list(tried)
    best = {tokens: min(us for (at, _), us in times.items() if at == tokens) for tokens, _ in times}
    near = {name for (tokens, name), us in times.items() if us <= NEAR * best[tokens]}
    return [one for one in tried if schedules.name(one) in near]


def guarded(argv: Sequence[str], file: Path, environ: Mapping[str, str], until: float) -> int:
    """
    Run a process that measures into a file, with the seconds that are left as its last word; return its status.

    It is started again without the schedule with which it died or stopped.
    """
    record, status = Record(file, ""), 1
    for start in range(MOST_STARTS):
        record.begin("start")
        words = [sys.executable, *argv, str(round(max(0.0, until - time.monotonic()), 1))]
        with subprocess.Popen(words, env=dict(environ)) as process:
            status = watched(process, record.now)
        if status == 0:
            break
        layer, _, what = record.now.read_text(encoding="utf-8").partition(" ")
        Record(file, layer).add(lost=what, why=f"the process ended with {status}", start=start)
        if " " in what or not layer:  # not a schedule: it would end so again
            break
    return status


def watched(process: subprocess.Popen[bytes], now: Path) -> int:
    """Wait for a process as long as it says what it does; end it when it says nothing for PATIENCE."""
    while (status := process.poll()) is None:
        if time.time() - now.stat().st_mtime > PATIENCE:
            process.kill()
            return process.wait()
        time.sleep(0.2)
    return status


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Yield HUMMING's choice beside the best, for each layer and number of tokens."""
    right = [row for row in rows if "us" in row and row["error"] <= MOST_ERROR]
    for layer, tokens in sorted({(row["layer"], row["tokens"]) for row in right}):
        here = [row for row in right if (row["layer"], row["tokens"]) == (layer, tokens)]
        best = min(here, key=lambda row: row["us"])
        for row in [*[one for one in here if one["own"]][:1], best]:
            who = "heuristic" if row["own"] else "best"
            yield (
                f"{layer:16} {tokens:4} {who:9} {row['us']:8.1f} us ±{row['spread']:.1%} {row['gb_s']:5} GB/s "
                f"{row['share']:.0%} {row['name']}"
            )
