"""
Run a module's unit tests over its mutants, each in a fork of its own. No file is changed.

pytest collects once. A mutant within a function is put in place by the function's code object, and only the tests that
call this function run, the quickest first. Any other mutant is imported in place of the file, and all tests run.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import IO

import pytest
from hypothesis import settings, strategies

from tools.mutants import ROOT, Mutant, Target
from tools.mutants.in_place import function_at, replace_code
from tools.mutants.reached import Reached, record

FAST = "(unit or process) and not slow"  # as `make test-fast`
OPTIONS = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "_hypothesis_pytestplugin",
    "-p",
    "xdist.plugin",
    "--hypothesis-seed=0",
    "-m",
    FAST,
)
ASLEEP = 30.0  # seconds that a trial may sleep in addition
SURVIVED, NOTICED = 0, 1
CONTROL = 0  # the line number of no mutant
settings.register_profile("mutants", max_examples=20, deadline=None, derandomize=True, database=None)


class Broken(Exception):
    """The tests do not pass without a mutant."""


def survivors(target: Target, mutants: Sequence[Mutant], jobs: int) -> list[Mutant]:
    """Return the mutants that the tests do not notice."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    trials = _Trials(target, mutants, jobs)
    with tempfile.TemporaryDirectory() as scratch, _quiet() as caught:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch
        status = pytest.main([*OPTIONS, f"--basetemp={scratch}/tests", *target.arguments], plugins=[trials])
        sys.stdout.flush()
        caught.seek(0)
        printed = caught.read()
    if status or not trials.reached:
        raise Broken(f"{printed}{' '.join(target.tests)} fail without a mutant, or have no test of the kind {FAST!r}")
    elsewhere = [mutant for mutant in mutants if function_at(mutant.file, mutant.number) is None]
    with _quiet():
        anew = _forks([_control(target), *elsewhere], lambda mutant: _anew(target, mutant), trials.seconds, jobs)
    if any(all(mutant.number != CONTROL for mutant in left) for left in (trials.left, anew)):
        raise Broken(f"{' '.join(target.tests)} fail in a fork without a mutant")
    left = [mutant for mutant in (*trials.left, *anew) if mutant.number != CONTROL]
    return sorted(left, key=lambda mutant: mutant.number)


class _Trials:
    """A plugin of pytest that runs the tests once for each mutant."""

    def __init__(self, target: Target, mutants: Sequence[Mutant], jobs: int) -> None:
        self.target, self.mutants, self.jobs = target, mutants, jobs
        self.reached: Mapping[str, Reached] = {}
        self.left: list[Mutant] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests, then those that reach each mutant."""
        settings.load_profile("mutants")  # after conftest.py has loaded its own
        self.reached = record(session, str(ROOT / self.target.file))
        if session.testsfailed:
            return True
        strategies.characters(codec="utf-8").validate()  # seconds, which each fork would take anew
        gc.freeze()
        items = {item.nodeid: item for item in session.items}

        def trial(mutant: Mutant) -> int:
            where = function_at(mutant.file, mutant.number)
            if where:
                replace_code(str(ROOT / mutant.file), where.name, mutant.source)
            names = [name for name, reached in self.reached.items() if not where or where.name in reached.functions]
            for name in sorted(names, key=lambda name: self.reached[name].seconds):
                session.config.hook.pytest_runtest_protocol(item=items[name], nextitem=None)
                if session.testsfailed:
                    return NOTICED
            return SURVIVED

        inside = [mutant for mutant in self.mutants if function_at(mutant.file, mutant.number)]
        self.left = _forks([_control(self.target), *inside], trial, self.seconds, self.jobs)
        return True

    @property
    def seconds(self) -> float:
        """The CPU seconds that a trial may take."""
        return 3 * sum(reached.seconds for reached in self.reached.values()) + 5


def _control(target: Target) -> Mutant:
    """Return the module as it is, in which a trial must find nothing."""
    return Mutant(target.file, CONTROL, "", "", (ROOT / target.file).read_text(encoding="utf-8"))


def _forks(mutants: Sequence[Mutant], trial: Callable[[Mutant], int], seconds: float, jobs: int) -> list[Mutant]:
    """Return the mutants whose trial has the status SURVIVED; one that does not end counts as noticed."""
    running: dict[int, Mutant] = {}
    rest, left = list(reversed(mutants)), []
    try:
        while rest or running:
            while rest and len(running) < jobs:
                mutant = rest.pop()
                running[_fork(lambda mutant=mutant: trial(mutant), seconds)] = mutant  # type: ignore[misc]
            pid, status = os.wait()
            mutant = running.pop(pid)
            if os.waitstatus_to_exitcode(status) == SURVIVED:
                left.append(mutant)
                if mutant.number != CONTROL:
                    print(f"  survives {mutant}", file=sys.stderr, flush=True)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return left


def _fork(work: Callable[[], int], seconds: float) -> int:
    if pid := os.fork():
        return pid
    status = NOTICED
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(10 * seconds + ASLEEP))
        status = work()
    finally:
        os._exit(status)


def _anew(target: Target, mutant: Mutant) -> int:
    """Import the mutant in place of its file, and run all tests."""
    path, code = str(ROOT / mutant.file), compile(mutant.source, ROOT / mutant.file, "exec")
    for name in [name for name in sys.modules if name.split(".")[0] in ("dsv4_serve", "tests")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    original = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        return code if self.path == path else original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch
        status = pytest.main([*OPTIONS, f"--basetemp={scratch}/tests", *target.arguments])
    return NOTICED if status else SURVIVED


@contextmanager
def _quiet() -> Iterator[IO[str]]:
    """Catch what pytest prints."""
    kept = os.dup(1)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as caught:
        try:
            sys.stdout.flush()
            os.dup2(caught.fileno(), 1)
            yield caught
        finally:
            with suppress(ValueError):
                sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)
