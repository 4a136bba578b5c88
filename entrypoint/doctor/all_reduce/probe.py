"""Run a timed all-reduce in child processes. It finds within seconds a hang that vLLM would only show as silence."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .result import START, AllReduceResult, AllReduceTiming

LIMIT = 20.0
"""Seconds for the whole run."""
PATIENCE = {"init": 10.0}
"""Seconds without a message from any rank that count as a hang; NCCL and CUDA start slowly, an all-reduce does not."""
_PATIENCE = 5.0
SETTLE = 2.0  # seconds for the other ranks to end after the first: the last to end may be the cause
RANK = (sys.executable, "-m", "dsv4_serve.entrypoint.doctor.all_reduce.rank")
_DONE = "done"
# Gloo finds its interface by the host's name, which containers often cannot resolve. NCCL's variables stay as they are.
_ENV = {"GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"}


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    at: str = START
    heard: float = field(default_factory=time.monotonic)
    seconds: dict[int, float] = field(default_factory=dict)
    rest: bytes = b""

    def read(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            with suppress(ValueError):  # a library wrote to standard output
                self._note(json.loads(line))
        self.heard = time.monotonic()

    def _note(self, message: Any) -> None:
        if isinstance(message, dict) and "step" in message:
            self.at = message["step"]
        elif isinstance(message, dict) and "bytes" in message:
            self.seconds[message["bytes"]] = message["seconds"]

    def last_error(self) -> str:
        self.errors.seek(0)
        lines = [line for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line.split(":", 1)[0]]
        return (errors or lines or [""])[-1].strip()


def run(
    ranks: int,
    backend: str,
    env: Mapping[str, str],
    limit: float = LIMIT,
    program: Sequence[str] = RANK,
) -> AllReduceResult:
    """
    All-reduce 1 KiB to 64 MiB between `ranks` processes and return the result, after `limit` seconds at most.

    `backend` is `nccl` (rank N takes CUDA device N) or `gloo`; `env` is the whole environment, as vLLM will get it.
    Every process leads a session of its own and is killed before this returns.
    """
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="dsv4-collective-") as folder,
        _started(
            ranks, [*program], [backend, f"{folder}/store", str(math.ceil(limit) + 1)], {**env, **_ENV}, Path(folder)
        ) as started,
    ):
        silent = _listen(started, began + limit)
        return _result(started, backend, began, silent=silent)


@contextmanager
def _started(
    ranks: int, program: list[str], arguments: list[str], env: Mapping[str, str], folder: Path
) -> Iterator[list[_Rank]]:
    started: list[_Rank] = []
    try:
        for number in range(ranks):
            errors = (folder / f"errors-{number}").open("w+b")
            argv = [*program, str(number), str(ranks), *arguments]
            process = subprocess.Popen(
                argv,
                env=dict(env),
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            started.append(_Rank(number, process, errors))
        yield started
    finally:
        for rank in started:
            _kill(rank.process)
            rank.errors.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children; one that hangs in a driver (state D) is ended by its own alarm."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(2)
    if process.stdout:
        process.stdout.close()


def _listen(ranks: list[_Rank], deadline: float) -> bool:
    """Read every rank until all are done, one ends, all are silent, or time is up; tell whether all were silent."""
    with selectors.DefaultSelector() as selector:
        for rank in ranks:
            selector.register(_pipe(rank), selectors.EVENT_READ, rank)
        one_ended = False
        while selector.get_map() and time.monotonic() < deadline:
            if not one_ended and _silent(ranks):
                return True
            for key, _ in selector.select(0.1):
                chunk = os.read(key.fd, 65536)
                key.data.read(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
                    if key.data.at != _DONE and not one_ended:  # it ended early: the others would wait for it
                        one_ended, deadline = True, min(deadline, time.monotonic() + SETTLE)
    return False


def _pipe(rank: _Rank) -> IO[bytes]:
    assert rank.process.stdout
    return rank.process.stdout


def _silent(ranks: list[_Rank]) -> bool:
    waiting = [rank for rank in ranks if rank.at != _DONE]
    if any(rank.at == START for rank in ranks) or not waiting:
        return False  # importing torch takes as long as the disk needs
    quiet = time.monotonic() - max(rank.heard for rank in waiting)
    return quiet > max(PATIENCE.get(rank.at, _PATIENCE) for rank in waiting)


def _result(ranks: list[_Rank], backend: str, began: float, *, silent: bool) -> AllReduceResult:
    count, wall = len(ranks), round(time.monotonic() - began, 2)
    if all(rank.at == _DONE for rank in ranks):
        return AllReduceResult(True, count, backend, wall, tuple(_timings(ranks)))
    ended = [(status, rank) for rank in ranks if rank.at != _DONE and (status := _status(rank.process)) is not None]
    if ended:
        status, first = min(ended, key=_order_of_blame)
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        message = f"rank {first.number}: {first.last_error() or 'no error message'} ({how}, at: {first.at})"
        return AllReduceResult(False, count, backend, wall, message=message)
    order = [START, "init", "first all-reduce"]
    steps = [order.index(rank.at) if rank.at in order else len(order) + len(rank.seconds) for rank in ranks]
    behind = [rank for rank, step in zip(ranks, steps, strict=True) if step == min(steps)]
    numbers = tuple(rank.number for rank in behind)
    at = behind[0].at
    return AllReduceResult(
        False, count, backend, wall, hung_at=at if silent else "", ran_out_at="" if silent else at, behind=numbers
    )


def _order_of_blame(ended: tuple[int, _Rank]) -> tuple[bool, bool, float]:
    """Order ranks that ended: one that was killed or found a wrong sum is the cause; its peers only report its end."""
    status, rank = ended
    return status >= 0, "wrong sum" not in rank.last_error(), rank.heard


def _status(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit status of a process that has closed its output or is about to, else None."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(0.2)
    return None


def _timings(ranks: list[_Rank]) -> Iterator[AllReduceTiming]:
    share = 2 * (len(ranks) - 1) / len(ranks)
    for size in ranks[0].seconds:
        seconds = max(rank.seconds[size] for rank in ranks)
        yield AllReduceTiming(size, seconds, share * size / seconds)
