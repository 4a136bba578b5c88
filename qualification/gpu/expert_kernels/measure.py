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
from qualification.gpu.expert_kernels.layers import EXPERTS, PEAK, PEAK_PRODUCTS, TOP_K
from qualification.gpu.expert_kernels.schedules import Schedule

DECODE = (32, 8, 128, 2, 16, 64, 4, 24, 96, 6, 256, 384)
"""Tokens of a step, those of most worth first. A decode step has one for each request and one for each drafted token."""
PROMPTS = (8192, 1024, 4096, 2048)
"""Those of steps that read prompts, the ends first."""
SOUNDED, PROMPTS_SOUNDED = 3, 2
"""After so many of DECODE or PROMPTS, schedules that were never near the best of these are left out."""
TOKENS = (*DECODE[:SOUNDED], *PROMPTS, *DECODE[SOUNDED:])
PROMPT_REPLAYS = 3
"""Steps of prompts take up to 30 times as long as those of decoding, and vary less."""
NEAR = 1.35
"""How much slower than the best a schedule may be and stay in."""
MOST_ERROR = 0.02
"""Largest difference to Humming's own choice, as a share of the largest value: BF16 rounds to 0.004."""
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


def prompts(tokens: int) -> bool:
    """Return whether a step of so many tokens is one that reads prompts."""
    return tokens > max(DECODE)


def tried(lists: Mapping[bool, Sequence[Schedule]], tokens: int) -> list[Schedule]:
    """Return what is measured at a step of the schedules for decoding (False) and prompts (True): its own, and near ones."""
    here, other = lists[prompts(tokens)], lists[not prompts(tokens)]
    names, mean = {schedules.name(one) for one in here}, tokens * TOP_K / EXPERTS
    return [*here, *(one for one in other if schedules.near(one, mean) and schedules.name(one) not in names)]


@dataclass
class Record:
    """A file of rows, and beside it what is being measured now."""

    file: Path
    layer: str

    @property
    def format(self) -> str:
        """Return the format of the layer's weights and inputs."""
        return self.layer.partition(",")[0]

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
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
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
    lists: Mapping[bool, Sequence[Schedule]],
    own: Mapping[int, Schedule],
    *,
    replays: int,
    until: float,
    middle: Any,
    difference: Any,
) -> None:
    """Measure schedules and Humming's own at each number of tokens until a time of the monotonic clock."""
    before = record.rows()
    lost = {row["lost"] for row in before if "lost" in row}
    times = {(row["tokens"], row["name"]): row["us"] for row in before if "us" in row}
    loaded: set[str] = set()
    for place, (tokens, mine) in enumerate(own.items()):
        record.begin(f"{tokens} inputs")
        step, counted = bench.step(tokens), min(replays, PROMPT_REPLAYS) if prompts(tokens) else replays
        expected = bench.result(mine, step)
        left = remaining(tried(lists, tokens), times, list(own)[:place], tokens)
        for one in [mine, *(one for one in left if schedules.name(one) != schedules.name(mine))]:
            name = schedules.name(one)
            if name in lost or (tokens, name) in times:
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
                us, spread = middle(bench.timed(one, step, counted))
            except (AssertionError, ValueError, RuntimeError) as refused:
                if "CUDA" in str(refused):  # nothing works in this process any more
                    raise
                record.add(lost=name, why=f"{type(refused).__name__}: {refused}"[:300])
                lost.add(name)
                continue
            rate, speed = (amount / us * 1e6 for amount in (step.bytes_moved, step.products))
            times[tokens, name] = us
            record.add(
                tokens=tokens, rows=tokens * TOP_K, name=name, schedule=one, own=one == mine, us=round(us, 3),
                spread=round(spread, 4), error=round(error, 5), bytes=round(step.bytes_moved), gb_s=round(rate / 1e9),
                share=round(rate / PEAK, 3), tflop_s=round(speed / 1e12, 1),
                of_dense=round(speed / PEAK_PRODUCTS[record.format], 3),
            )  # fmt: skip
        record.begin(f"{tokens} again")
        us, spread = middle(bench.timed(mine, step, counted))
        record.add(tokens=tokens, again=round(us, 3), spread=round(spread, 4))
        us, _ = middle(bench.aligning(step, mine["block_shape"][0], counted))
        record.add(tokens=tokens, align_us=round(us, 3))


def remaining(
    here: Sequence[Schedule], times: Mapping[tuple[int, str], float], before: Sequence[int], tokens: int
) -> list[Schedule]:
    """
    Return those of a step's schedules that were near the best of an earlier step at least once.

    Only steps of the same kind count, and the first of a kind have all.
    """
    alike = [at for at in before if prompts(at) == prompts(tokens)]
    if len(alike) < (PROMPTS_SOUNDED if prompts(tokens) else SOUNDED):
        return list(here)
    best = {step: min(us for (at, _), us in times.items() if at == step) for step, _ in times if step in alike}
    near = {name for (at, name), us in times.items() if at in best and us <= NEAR * best[at]}
    return [one for one in here if schedules.name(one) in near]


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
    """Yield Humming's choice beside the best, for each layer and number of tokens."""
    right = [row for row in rows if "us" in row and row["error"] <= MOST_ERROR]
    for layer, tokens in sorted({(row["layer"], row["tokens"]) for row in right}):
        here = [row for row in right if (row["layer"], row["tokens"]) == (layer, tokens)]
        best = min(here, key=lambda row: row["us"])
        for row in [*[one for one in here if one["own"]][:1], best]:
            who = "heuristic" if row["own"] else "best"
            speed = f"{row['tflop_s']:6.1f} TFLOP/s {row['of_dense']:.0%} " if "tflop_s" in row else ""
            yield (
                f"{layer:16} {tokens:4} {who:9} {row['us']:8.1f} us ±{row['spread']:.1%} {row['gb_s']:5} GB/s "
                f"{row['share']:.0%} {speed}{row['name']}"
            )
