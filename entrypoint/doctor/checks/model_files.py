"""Check the files of a model that are not its weights."""

from __future__ import annotations

from ...checkpoint.identify import architecture as architecture_of
from ...checkpoint.read import Checkpoint
from ...problem import Problem, check
from ..checkpoint_requirements import CheckpointRequirements
from .wording import AS_ITSELF, FETCH, ORIGINAL

_VLLM = "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm"


@check(
    symptom="OSError: Can't load the configuration of ...",
    link=f"{_VLLM}/transformers_utils/config.py",
    remedy="correct the path, or fetch the weights into it with `dsv4 weights fetch`",
    tried="for real",
)
def folder_readable(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The folder is there, can be listed, and is not empty."""
    if checkpoint.files:
        return None
    why = f"cannot be listed ({checkpoint.unreadable})" if checkpoint.unreadable else "is empty"
    return Problem(f"{checkpoint.folder} {why}", "the folder of a checkpoint")


@check(
    symptom="OSError or JSONDecodeError before anything is loaded",
    link=f"{_VLLM}/transformers_utils/config.py",
    remedy=(ORIGINAL, FETCH),
    tried="for real",
)
def config_readable(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """config.json exists, is JSON, and names its model_type; `config-types` checks the other fields."""
    config = checkpoint.config
    if config.absent:
        return Problem(f"no config.json in {checkpoint.folder}", "config.json next to the weights", FETCH)
    fault = config.fault or ("" if config.value.get("model_type") else "no model_type")
    return Problem(f"config.json: {fault}", "the model's own config.json", ORIGINAL) if fault else None


@check(
    symptom="OSError: Can't load tokenizer, after minutes",
    link=f"{_VLLM}/tokenizers/deepseek_v4.py",
    remedy=FETCH,
    tried="for real",
)
def tokenizer_present(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The tokenizer's files exist."""
    absent = [name for name in ("tokenizer.json", "tokenizer_config.json") if name not in checkpoint.files]
    if not absent:
        return None
    return Problem(f"no {' and no '.join(absent)} in {checkpoint.folder}", "the model's tokenizer")


@check(
    symptom="Served with flags that are meant for another model",
    link=f"{_VLLM}/models/deepseek_v4/__init__.py",
    remedy=AS_ITSELF,
    tried="for real",
)
def architecture_matches(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """The folder holds the architecture of the model that it is served as."""
    actual = architecture_of(dict(checkpoint.config.value))
    if not required.architecture or not checkpoint.config.value or actual == required.architecture:
        return None
    return Problem(
        f"{checkpoint.folder} holds {actual}",
        f"{required.architecture}, the architecture of model {required.model}",
    )
