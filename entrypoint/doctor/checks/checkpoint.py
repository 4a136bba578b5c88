"""Every check of a checkpoint, and asking them all."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ...checkpoint.read import Checkpoint
from ...problem import Check, Problem, name_of
from ..checkpoint_requirements import Wanted
from . import config, draft, scheme, shard

_ANY = (*shard.CHECKS, *config.CHECKS, *scheme.CHECKS)
_V4 = (*config.V4_CHECKS, *scheme.V4_CHECKS, *draft.V4_CHECKS)
CHECKS: tuple[Check, ...] = (*_ANY, *_V4)


def examine(checkpoint: Checkpoint, wanted: Wanted, skip: Container[str] = ()) -> Iterator[tuple[str, Problem]]:
    """Yield each check that found something, by name; the layout is looked at in DeepSeek-V4 checkpoints only."""
    for check in CHECKS if checkpoint.is_deepseek_v4 else CHECKS[: len(_ANY)]:
        if name_of(check) not in skip and (problem := check(checkpoint, wanted)):
            yield name_of(check), problem
