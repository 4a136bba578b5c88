"""Run every stage within the budget, keep what is finished, and give a verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..client import local_replica
from ..errors import ConfigError, UserError
from ..smoke.outcome import Outcome, failed, inconclusive, skipped
from . import kept, small
from .asking import OutOfTime
from .box import Box
from .small import SmallReplica
from .stages.all_reduce import all_reduce
from .stages.depth import depth
from .stages.faults import faults
from .stages.full_size import full_size
from .stages.host import host
from .stages.known_answers import known_answers
from .stages.load import load
from .stages.numerics import numerics

log = logging.getLogger(__name__)

ALONE: Mapping[str, Callable[[Box], Outcome]] = {
    "host": host,
    "all-reduce": all_reduce,
    "numerics": numerics,
    "full-size": full_size,
}
"""Stages that start what they need themselves."""
ON_SMALL: Mapping[str, Callable[[Box, SmallReplica], Outcome]] = {
    "known-answers": known_answers,
    "load": load,
    "depth": depth,
    "faults": faults,
}
"""Stages that share one replica of the small checkpoint; the last one stops its engine."""
STAGES = ("host", "all-reduce", *ON_SMALL, "numerics", "full-size")
"""In the order in which they run."""
_TOO_LATE = "the time of --minutes was used up"
_MORE = "run it again: finished stages are kept; or raise --minutes"


def run(box: Box, stages: Sequence[str], path: Path) -> list[Outcome]:
    """
    Return the outcomes of these stages, in order; those that an interrupted run finished are not run again.

    Each is kept in `path` as soon as it is finished, so that Stopped, which a signal raises, loses no more than one.
    """
    outcomes = {name: one for name, one in kept.read(path).items() if name in stages}
    for name, outcome in outcomes.items():
        log.info(f"{name}: finished in an earlier run, {outcome.verdict}")

    def keep(name: str, outcome: Outcome, began: float) -> None:
        outcomes[name] = dataclasses.replace(outcome, name=name, seconds=round(time.monotonic() - began, 1))
        log.info(f"{name}: {outcome.verdict}, {outcome.seen}")
        kept.write(path, list(outcomes.values()))

    with local_replica.stops_raise():
        for names in _groups([name for name in STAGES if name in stages and name not in outcomes]):
            if names[0] in ON_SMALL:
                _on_small(box, names, keep)
            else:
                began = time.monotonic()
                keep(names[0], _outcome(box, functools.partial(ALONE[names[0]], box)), began)
    return [outcomes[name] for name in STAGES if name in outcomes]


def _groups(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield each stage alone, and those of the small replica together."""
    together = [name for name in names if name in ON_SMALL]
    for name in names:
        if name not in ON_SMALL:
            yield [name]
        elif name == together[0]:
            yield together


def _on_small(box: Box, names: Sequence[str], keep: Callable[[str, Outcome, float], None]) -> None:
    """Serve the small checkpoint once for these stages; where it does not start, the first of them failed."""
    began, first = time.monotonic(), names[0]
    with contextlib.ExitStack() as stack:
        served: list[SmallReplica] = []

        def start() -> Outcome:
            try:
                model = small.write(box)
            except ConfigError as error:
                return skipped(str(error))
            served.append(stack.enter_context(small.replica(box, model)))
            return skipped("")

        started = _outcome(box, start)
        if not served:
            keep(first, started, began)
            missing = inconclusive("the small checkpoint was not served", f"see {first}")
            for name in names[1:]:
                keep(name, started if started.verdict == "skipped" else missing, time.monotonic())
        for replica in served:
            for name in names:
                keep(name, _outcome(box, functools.partial(ON_SMALL[name], box, replica)), began)
                began = time.monotonic()


def _outcome(box: Box, stage: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of a stage, or why it has none."""
    if box.remaining <= 0:
        return inconclusive(f"not begun: {_TOO_LATE}", _MORE)
    try:
        return stage()
    except OutOfTime:
        return inconclusive(f"not finished: {_TOO_LATE}", _MORE)
    except local_replica.Stopped:
        raise
    except UserError as error:
        if box.remaining <= 0:
            return inconclusive(f"not finished: {_TOO_LATE} ({error})", _MORE)
        return failed(str(error), "mend what the message names, and run it again")
