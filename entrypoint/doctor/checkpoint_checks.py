"""Every check of a checkpoint, and asking them all."""

from __future__ import annotations

from collections.abc import Container, Iterator

from dsv4_serve.entrypoint.doctor import config_checks, draft_checks, scheme_checks, shard_checks
from dsv4_serve.entrypoint.doctor.checkpoint import Checkpoint
from dsv4_serve.entrypoint.doctor.problem import Check, Problem, name_of
from dsv4_serve.entrypoint.doctor.wanted import Wanted

_ANY = (*shard_checks.CHECKS, *config_checks.CHECKS, *scheme_checks.CHECKS)
_V4 = (*config_checks.V4_CHECKS, *scheme_checks.V4_CHECKS, *draft_checks.V4_CHECKS)
CHECKS: tuple[Check, ...] = (*_ANY, *_V4)


def examine(checkpoint: Checkpoint, wanted: Wanted, skip: Container[str] = ()) -> Iterator[tuple[str, Problem]]:
    """Yield each check that found something, by name; the layout is looked at in DeepSeek-V4 checkpoints only."""
    for check in CHECKS if checkpoint.is_deepseek_v4 else CHECKS[: len(_ANY)]:
        if name_of(check) not in skip and (problem := check(checkpoint, wanted)):
            yield name_of(check), problem
