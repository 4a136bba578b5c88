"""A timed all-reduce in child processes with a hard limit: it finds in seconds the hang that vLLM shows as silence."""

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

LIMIT = 20.0
"""Seconds that everything together may take."""
PATIENCE = {"init": 10.0}
"""Seconds without a sign from any rank that count as a hang; NCCL and CUDA start slowly, an all-reduce does not."""
_PATIENCE = 5.0
LAST_WORDS = 2.0  # seconds for the other ranks when one has ended: the one that ended last may be the cause
RANK = (sys.executable, "-m", "dsv4_serve.entrypoint.doctor.all_reduce.rank")
_START, _DONE = "importing torch", "done"
# Gloo finds its interface by the host's name, which containers often cannot resolve. NCCL's variables stay as they are.
_ENV = {"GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class AllReduceTiming:
    """One size: bytes, the slowest rank's median seconds, and bus bandwidth in bytes/s (2 (n-1)/n of size / time)."""

    bytes: int
    seconds: float
    bandwidth: float


@dataclass(frozen=True)
class AllReduceResult:
    """
    What an all-reduce showed.

    `hung_at` names the step at which every rank fell silent, `ran_out_at` the step at which the limit came while they
    still moved, and `behind` the ranks that had come least far; `message` tells of a rank that ended by itself.
    """

    ok: bool
    ranks: int
    backend: str
    wall: float
    """Seconds from the start of the first rank to the end of the last."""
    timings: tuple[AllReduceTiming, ...] = ()
    hung_at: str = ""
    ran_out_at: str = ""
    behind: tuple[int, ...] = ()
    message: str = ""

    def __str__(self) -> str:
        """Return it in a few words."""
        if self.ok:
            return "went through"
        what = f"hung at: {self.hung_at}" if self.hung_at else f"time ran out at: {self.ran_out_at}"
        names = ", ".join(map(str, self.behind))
        return self.message or f"{what} (rank {names}) after {self.wall:.0f} s"

    @property
    def inconclusive(self) -> bool:
        """Whether time ran out, or a rank did not get past the import of torch: nothing is known about the GPUs."""
        return bool(self.ran_out_at) or f"at: {_START}" in self.message


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    at: str = _START
    heard: float = field(default_factory=time.monotonic)
    seconds: dict[int, float] = field(default_factory=dict)
    rest: bytes = b""

    def hear(self, chunk: bytes) -> None:
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
    All-reduce 1 KiB to 64 MiB between `ranks` processes and return what came of it, after `limit` seconds at most.

    `backend` is `nccl` (rank N takes CUDA device N) or `gloo`; `env` is the whole environment, as vLLM will have it.
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
    """End a process and what it started; one that a driver holds (state D) is left to its own alarm."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(2)
    if process.stdout:
        process.stdout.close()


def _listen(ranks: list[_Rank], deadline: float) -> bool:
    """Hear every rank until all are done, one ended, all fell silent, or time is up; tell whether they fell silent."""
    with selectors.DefaultSelector() as selector:
        for rank in ranks:
            selector.register(_pipe(rank), selectors.EVENT_READ, rank)
        one_ended = False
        while selector.get_map() and time.monotonic() < deadline:
            if not one_ended and _silent(ranks):
                return True
            for key, _ in selector.select(0.1):
                chunk = os.read(key.fd, 65536)
                key.data.hear(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
                    if key.data.at != _DONE and not one_ended:  # before it was done: the others would wait for it
                        one_ended, deadline = True, min(deadline, time.monotonic() + LAST_WORDS)
    return False


def _pipe(rank: _Rank) -> IO[bytes]:
    assert rank.process.stdout
    return rank.process.stdout


def _silent(ranks: list[_Rank]) -> bool:
    waiting = [rank for rank in ranks if rank.at != _DONE]
    if any(rank.at == _START for rank in ranks) or not waiting:
        return False  # importing torch takes what the disk takes
    quiet = time.monotonic() - max(rank.heard for rank in waiting)
    return quiet > max(PATIENCE.get(rank.at, _PATIENCE) for rank in waiting)


def _result(ranks: list[_Rank], backend: str, began: float, *, silent: bool) -> AllReduceResult:
    count, wall = len(ranks), round(time.monotonic() - began, 2)
    if all(rank.at == _DONE for rank in ranks):
        return AllReduceResult(True, count, backend, wall, tuple(_timings(ranks)))
    ended = [(status, rank) for rank in ranks if rank.at != _DONE and (status := _status(rank.process)) is not None]
    if ended:
        status, first = min(ended, key=_blame)
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        message = f"rank {first.number}: {first.last_error() or 'no error message'} ({how}, at: {first.at})"
        return AllReduceResult(False, count, backend, wall, message=message)
    order = [_START, "init", "first all-reduce"]
    steps = [order.index(rank.at) if rank.at in order else len(order) + len(rank.seconds) for rank in ranks]
    behind = [rank for rank, step in zip(ranks, steps, strict=True) if step == min(steps)]
    numbers = tuple(rank.number for rank in behind)
    at = behind[0].at
    return AllReduceResult(
        False, count, backend, wall, hung_at=at if silent else "", ran_out_at="" if silent else at, behind=numbers
    )


def _blame(ended: tuple[int, _Rank]) -> tuple[bool, bool, float]:
    """Order ranks that ended: one that was killed or found a wrong sum is the cause, its peers complain of its end."""
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
