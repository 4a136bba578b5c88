"""Check the draft head against the plan's method of drafting."""

from __future__ import annotations

from ...checkpoint import fields, layout
from ...checkpoint.described import number
from ...checkpoint.read import Checkpoint
from ...problem import Problem, check
from ..checkpoint_requirements import CheckpointRequirements
from .wording import FETCH, NO_DRAFT, ORIGINAL, some

_DECLARE = "set num_nextn_predict_layers to 1, as the checkpoint has the tensors mtp.0.*"
_DIVIDE = "set NUM_SPECULATIVE_TOKENS={layers}"
_ISSUES = "https://github.com/vllm-project/vllm/issues"
_TRANSFORMERS = "https://github.com/huggingface/transformers/blob/main/src/transformers/models/deepseek_v4"
_SPECULATIVE = "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/speculative.py"


@check(
    symptom="AttributeError: num_nextn_predict_layers, or ZeroDivisionError",
    link=_SPECULATIVE,
    remedy=(_DECLARE, NO_DRAFT),
    failures=(18,),
    tried="for real",
)
def draft_layers_declared(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """config.json declares how many MTP layers there are."""
    declared = checkpoint.config.value.get("num_nextn_predict_layers")
    if not required.drafts_with_mtp or number(checkpoint.config.value, "num_nextn_predict_layers"):
        return None
    return Problem(
        f"num_nextn_predict_layers is {'absent from' if declared is None else f'{declared} in'} config.json",
        "1 or more, to draft with MTP",
        _DECLARE if _has(checkpoint, "mtp.0") else NO_DRAFT,
    )


@check(
    symptom="0 % of draft tokens accepted: from_pretrained drops mtp.* silently",
    link=_TRANSFORMERS,
    remedy=f"serve a checkpoint with its MTP layer, or {NO_DRAFT}",
    failures=(18,),
    tried="for real",
)
def draft_head_present(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """The checkpoint kept its MTP layers."""
    if not required.drafts_with_mtp or not checkpoint.is_legible:
        return None
    gone = [p for p in layout.draft_layers(checkpoint.config.value) if not _has(checkpoint, p)]
    if not gone:
        return None
    return Problem(
        f"none of the {len(checkpoint.tensors):,} tensors is named {some(f'{prefix}.*' for prefix in gone)}",
        "a checkpoint that kept its MTP layer",
    )


@check(
    symptom="Correct answers, but a draft head that drafts noise",
    link=f"{_ISSUES}/43456",
    remedy=f"{FETCH}, or {NO_DRAFT}",
    failures=(18, 19),
    tried="for real",
)
def draft_head_complete(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """No tensor of an MTP layer is missing: three projections of each expert, and the rest of the block."""
    if not required.drafts_with_mtp or not checkpoint.is_legible or _is_dspark(checkpoint):
        return None
    present = [p for p in layout.draft_layers(checkpoint.config.value) if _has(checkpoint, p)]
    lost = [name for prefix in present for name in layout.missing(checkpoint, prefix)]
    if not lost:
        return None
    return Problem(f"the draft head lacks {some(lost)}", "every tensor of the MTP layer")


@check(
    symptom="Correct answers, but a DSpark drafter that drafts noise",
    link=f"{_ISSUES}/52165",
    remedy=f"{FETCH}, or {NO_DRAFT}",
    failures=(60,),
    tried="for real",
)
def draft_dspark_complete(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """No tensor of a DSpark drafter is missing: its layers, main_proj, Markov head and final norm."""
    if required.method != "dspark" or not checkpoint.is_legible or not _is_dspark(checkpoint):
        return None
    lost = list(layout.missing_of_dspark(checkpoint))
    return Problem(f"the DSpark drafter lacks {some(lost)}", "every tensor of the drafter") if lost else None


@check(
    symptom="A DSpark drafter under mtp.*, and no MTP head",
    link=f"{_ISSUES}/52165",
    remedy="set --speculative-config.method dspark and its draft tokens, or serve a checkpoint with an MTP layer",
    failures=(60,),
    tried="for real",
)
def draft_is_mtp(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """With method mtp, the tensors under mtp.* are an MTP layer."""
    if not required.drafts_with_mtp or not _is_dspark(checkpoint):
        return None
    return Problem(
        "the tensors under mtp.* are a DSpark drafter",
        "an MTP layer, for method mtp",
    )


@check(
    symptom="AttributeError: dspark_target_layer_ids",
    link=f"{_ISSUES}/52165",
    remedy="set --speculative-config.method mtp",
    failures=(60,),
    tried="for real",
)
def draft_is_dspark(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """With method dspark, the checkpoint has a DSpark drafter."""
    if required.method != "dspark" or not checkpoint.is_legible:
        return None
    if _is_dspark(checkpoint):
        return None
    return Problem(
        "no DSpark drafter: no tensor mtp.0.main_proj.*",
        "a DSpark drafter, for method dspark",
    )


@check(
    symptom="AttributeError: dspark_markov_rank, or a drafter that reads the wrong layers",
    link="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/models/deepseek_v4/nvidia/dspark.py",
    remedy=(ORIGINAL, NO_DRAFT),
    failures=(60,),
    tried="for real",
)
def draft_dspark_fields(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """config.json describes the DSpark drafter: block size, noise token, Markov rank, layers of the target model."""
    if required.method != "dspark" or not _is_dspark(checkpoint):
        return None
    wrong = fields.wrong_of_dspark(checkpoint.config.value)
    return Problem(f"config.json: {some(wrong)}", "the fields of the drafter", ORIGINAL) if wrong else None


@check(
    symptom="num_speculative_tokens:7 must be divisible by n_predict=5",
    link=_SPECULATIVE,
    remedy=_DIVIDE,
    failures=(60,),
    tried="for real",
)
def draft_tokens_divide(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """There are at most as many draft tokens as MTP layers, or a multiple of them."""
    layers = number(checkpoint.config.value, "num_nextn_predict_layers")
    tokens = required.draft_tokens
    if not required.drafts_with_mtp or not layers or tokens <= layers or not tokens % layers:
        return None
    return Problem(
        f"{tokens} draft tokens for {layers} MTP layers",
        f"at most {layers}, or a multiple of it",
        _DIVIDE.format(layers=layers),
    )


def _has(checkpoint: Checkpoint, prefix: str) -> bool:
    return any(name.startswith(f"{prefix}.") for name in checkpoint.draft_tensors)


def _is_dspark(checkpoint: Checkpoint) -> bool:
    """Tell by a tensor that vLLM 0.32.0's DSpark drafter has and its MTP layer does not."""
    return any(f"mtp.0.main_proj.{kind}" in checkpoint.tensors for kind in ("weight", "scale", "weight_packed"))
