"""Run every check of a checkpoint."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ...checkpoint.read import Checkpoint
from ...problem import AnyCheck, Problem, checks_in
from ..checkpoint_requirements import CheckpointRequirements
from . import config, draft, model_files, patches, scheme, shard

_ANY = checks_in(shard, model_files)
CHECKS = (*_ANY, *checks_in(config, scheme, draft, patches))
_DAMAGED = (*checks_in(shard), model_files.config_readable, model_files.tokenizer_present, config.config_types)


def examine(
    checkpoint: Checkpoint, required: CheckpointRequirements, skip: Container[str] = ()
) -> Iterator[tuple[str, Problem]]:
    """
    Yield each check that finds something, by name; the layout is checked in DeepSeek-V4 checkpoints only.

    Of a folder without files one answer is enough, and a config.json with damaged fields does not tell the layout.
    """
    for check in _checks_of(checkpoint, required):
        if check.name not in skip and (problem := check(checkpoint, required)):
            yield check.name, problem


def _checks_of(checkpoint: Checkpoint, required: CheckpointRequirements) -> tuple[AnyCheck, ...]:
    if not checkpoint.files:
        return (model_files.folder_readable,)
    if checkpoint.config.value and config.config_types(checkpoint, required):
        return _DAMAGED
    return CHECKS if checkpoint.is_deepseek_v4 else _ANY
