"""Prove NCCL settings: the first named environment whose all-reduce goes through is the one to serve with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .probe import LIMIT, AllReduceResult, run


@dataclass(frozen=True)
class Proof:
    """Which NCCL set was proven, and what each set that was tried showed."""

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
    Try named environments in turn, best first, and choose the first whose all-reduce goes through.

    All together take `limit` seconds at most. When none goes through the last one is chosen: it is the safest.
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
