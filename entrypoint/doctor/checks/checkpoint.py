"""Run every check of a checkpoint."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ...checkpoint.read import Checkpoint
from ...problem import Problem, checks_in
from ..checkpoint_requirements import CheckpointRequirements
from . import config, draft, model_files, patches, scheme, shard

_ANY = checks_in(shard, model_files)
CHECKS = (*_ANY, *checks_in(config, scheme, draft, patches))


def examine(
    checkpoint: Checkpoint, required: CheckpointRequirements, skip: Container[str] = ()
) -> Iterator[tuple[str, Problem]]:
    """Yield each check that finds something, by name; the layout is checked in DeepSeek-V4 checkpoints only."""
    for check in CHECKS if checkpoint.is_deepseek_v4 else _ANY:
        if check.name not in skip and (problem := check(checkpoint, required)):
            yield check.name, problem
