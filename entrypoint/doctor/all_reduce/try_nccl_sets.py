"""Try sets of NCCL variables, and choose the first whose all-reduce completes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .probe import LIMIT, run
from .result import AllReduceResult


@dataclass(frozen=True)
class Proof:
    """The chosen NCCL set, and the result of each set that was tried."""

    chosen: str
    tried: tuple[tuple[str, AllReduceResult], ...]


def prove(
    sets: Sequence[tuple[str, Mapping[str, str]]],
    ranks: int,
    backend: str = "nccl",
    limit: float = LIMIT,
    run_one: Callable[..., AllReduceResult] = run,
) -> Proof:
    """
    Try named environments in turn, best first, and choose the first whose all-reduce completes.

    All together take at most `limit` seconds. When none completes, the last one is chosen, as it is the safest.
    """
    deadline, tried = time.monotonic() + limit, []
    for name, env in sets:
        remaining = deadline - time.monotonic()
        if remaining <= 1:
            break
        result = run_one(ranks, backend, env, remaining)
        tried.append((name, result))
        if result.ok:
            return Proof(name, tuple(tried))
    return Proof(sets[-1][0], tuple(tried))
