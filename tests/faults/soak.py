"""
Start and stop real vLLM again and again, the stop in another phase each time, and look for what is left behind.

    unshare --mount sh -c 'mount -t tmpfs tmpfs /dev/shm && python -m tests.faults.soak --cycles 100 --out soak.jsonl'

A line of JSON for each cycle; the exit status is 1 when anything was left, or a stop did not end with 0 (143 for one
that was hurried). After each: no process of its session, no file in TMPDIR, nothing in /dev/shm, which therefore has to
be its own. The supervisor's open files are noted: they have to be as many in the last cycles as in the first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from dsv4_serve.demo.llama import write_checkpoint
from tests.support.replica import Late, Replica, replica

PHASES = ("resolving", "starting", "connecting ranks", "loading weights", "profiling", "warming up", "proving", "ready")
WAYS = ((signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM))
OFFSETS = (0.0, 0.05, 0.4, 1.1, 2.3, 0.7, 1.7)  # seconds into the phase; 8, 3 and 7 have no common factor
LIMIT = 300.0  # seconds for a start


@dataclass
class Cycle:
    """One start and one stop. `open_files` is the supervisor's, at the stop; `left` names what should not be there."""

    number: int
    phase: str
    signals: list[str]
    seconds_to_phase: float = 0.0
    seconds_to_end: float = 0.0
    status: int | None = None
    open_files: int = 0
    left: tuple[str, ...] = ()
    problem: str = ""

    @property
    def good(self) -> bool:
        return not self.left and not self.problem and self.status in (0, *([143] if len(self.signals) > 1 else []))


def phase(running: Replica) -> str:
    """The phase that it is in; empty before it answers."""
    status, body = running.ask("/startupz?format=json")
    return str(json.loads(body)["phase"]) if status else ""


def reached(running: Replica, target: str) -> str:
    """Wait until the phase is there, or a later one where it was too short to be seen, and return what was seen."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until and running.process.poll() is None:
        now = phase(running)
        if now in PHASES and PHASES.index(now) >= PHASES.index(target):
            return now
        time.sleep(0.02)
    raise Late(f"{target}: not reached\n{running.log_text()[-2000:]}")


def cycle(number: int, phases: Sequence[str], model: Path, folder: Path) -> Cycle:
    """Start, stop in the phase whose turn it is, and look; the folder is kept only when something was wrong."""
    signals = WAYS[number % len(WAYS)]
    result = Cycle(number, phases[number % len(phases)], [s.name for s in signals])
    env: dict[str, Any] = {"PROFILE": "demo", "MODEL": f"demo={model}", "DSV4_SUPERVISE_DRAIN_WAIT": "0.5"}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(model / "inductor")  # what is meant to stay is no leak
    began = time.monotonic()
    with replica(folder, model_name="demo", **env) as running:
        try:
            result.phase = reached(running, result.phase)
            time.sleep(OFFSETS[number % len(OFFSETS)])
            result.seconds_to_phase = round(time.monotonic() - began, 1)
            result.open_files = psutil.Process(running.process.pid).num_fds()
            family = running.family()
            for number_of_signal in signals:
                running.stop(number_of_signal)
                time.sleep(0.3)
            result.status, took = running.until_ended(60)
            result.seconds_to_end = round(took, 1)
            result.left = tuple(left(running, family))
        except (Late, psutil.Error) as error:
            result.problem = str(error)[-2000:]
    result.left += tuple(f"/dev/shm/{path.name}" for path in Path("/dev/shm").iterdir())
    if result.good:
        shutil.rmtree(folder)
    return result


def left(running: Replica, family: list[psutil.Process]) -> Iterator[str]:
    """Name the processes and files of a replica that has ended."""
    session = running.process.pid
    for process in psutil.process_iter():
        try:
            if process in family or os.getsid(process.pid) == session:
                yield f"process {process.pid} {process.name()} ({process.status()})"
        except (ProcessLookupError, psutil.Error):
            continue
    yield from (f"file {name}" for name in running.files())


def main() -> int:
    parser = argparse.ArgumentParser(description="Start and stop cycles of real vLLM.")
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first cycle, to go on where another left off"
    )
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES, help="where the stops come, by turns")
    parser.add_argument("--out", type=Path, required=True, help="a file of JSON lines, appended to")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    model = write_checkpoint(work / "model")
    bad, most = 0, 0
    with options.out.open("a", encoding="utf-8") as out:
        for number in range(options.first, options.first + options.cycles):
            result = cycle(number, options.phases, model, work / str(number))
            bad += not result.good
            most = max(most, result.open_files)
            out.write(json.dumps(asdict(result)) + "\n")
            out.flush()
    print(f"{options.cycles} cycles, {bad} of them not clean; at most {most} open files in a supervisor")
    if not bad:
        shutil.rmtree(work)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
