"""The draft head in the checkpoint, against how the plan drafts. Each check takes (Checkpoint, Wanted)."""

from __future__ import annotations

from ...checkpoint import layout
from ...checkpoint.layout import number
from ...checkpoint.read import Checkpoint
from ...problem import Check, Problem, Wild, check
from ..checkpoint_requirements import Wanted
from .scheme import PATCH
from .shard import FETCH, some

WITHOUT = "serve without it: NUM_SPECULATIVE_TOKENS=0"
_ISSUES = "https://github.com/vllm-project/vllm/issues"
_PRO = "https://huggingface.co/canada-quant/DeepSeek-V4-Pro-NVFP4-FP8-MTP"
_TRANSFORMERS = "https://github.com/huggingface/transformers/blob/main/src/transformers/models/deepseek_v4"
_PULLS = "https://github.com/vllm-project/vllm/pull"
_SPECULATIVE = "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/speculative.py"


@check(Wild("AttributeError: num_nextn_predict_layers, or ZeroDivisionError", _SPECULATIVE, (18,), "for real"))
def draft_layers_declared(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """config.json says how many MTP layers there are."""
    said = checkpoint.config.value.get("num_nextn_predict_layers")
    if not wanted.drafts_with_mtp or number(checkpoint.config.value, "num_nextn_predict_layers"):
        return None
    has = _has(checkpoint, "mtp.0")
    return Problem(
        f"num_nextn_predict_layers {'absent from' if said is None else f'{said} in'} config.json",
        "1 or more, to draft with MTP",
        "set it to 1: the tensors mtp.0.* are there" if has else WITHOUT,
    )


@check(Wild("0 % of draft tokens accepted: from_pretrained drops mtp.* silently", _TRANSFORMERS, (18,), "for real"))
def draft_head_present(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """The checkpoint kept its MTP layers."""
    if not wanted.drafts_with_mtp or not checkpoint.is_legible:
        return None
    gone = [p for p in layout.drafts(checkpoint.config.value) if not _has(checkpoint, p)]
    if not gone:
        return None
    return Problem(
        f"no tensor {some(f'{prefix}.*' for prefix in gone)} among {len(checkpoint.tensors):,}",
        "a checkpoint that kept its MTP layer",
        f"use one, or {WITHOUT}",
    )


@check(Wild("Right answers, and a draft head that drafts noise", f"{_ISSUES}/43456", (18, 19), "for real"))
def draft_head_complete(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """Every tensor of every MTP layer is there: three projections of each expert, and the rest of the block."""
    if not wanted.drafts_with_mtp or not checkpoint.is_legible or _is_dspark(checkpoint):
        return None
    present = [p for p in layout.drafts(checkpoint.config.value) if _has(checkpoint, p)]
    lost = [name for prefix in present for name in layout.missing(checkpoint, prefix)]
    if not lost:
        return None
    return Problem(f"the draft head lacks {some(lost)}", "every tensor of the MTP layer", f"{FETCH}, or {WITHOUT}")


@check(Wild("A DSpark drafter under mtp.*, and no MTP head", f"{_ISSUES}/52165", (60,), "for real"))
def draft_is_mtp(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """What lies under mtp.* is an MTP layer, when drafting is by MTP."""
    if not wanted.drafts_with_mtp or not _is_dspark(checkpoint):
        return None
    return Problem(
        "tensors of a DSpark drafter under mtp.*",
        "an MTP layer for method mtp",
        "set --speculative-config.method dspark and its draft tokens, or serve a checkpoint with an MTP layer",
    )


@check(Wild("AttributeError: dspark_target_layer_ids", f"{_ISSUES}/52165", (60,), "for real"))
def draft_is_dspark(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """A DSpark drafter is there when drafting is by DSpark."""
    if wanted.method != "dspark" or not checkpoint.is_legible:
        return None
    if _is_dspark(checkpoint) and "dspark_target_layer_ids" in checkpoint.config.value:
        return None
    return Problem(
        "no DSpark drafter: no tensor mtp.*.main_proj.* or no dspark_target_layer_ids in config.json",
        "one, for method dspark",
        "set --speculative-config.method mtp",
    )


@check(Wild("num_speculative_tokens:7 must be divisible by n_predict=5", _SPECULATIVE, (60,), "for real"))
def draft_tokens_divide(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """More draft tokens than MTP layers are drafted in whole rounds."""
    layers = number(checkpoint.config.value, "num_nextn_predict_layers")
    if not wanted.drafts_with_mtp or not layers or wanted.draft_tokens <= layers or not wanted.draft_tokens % layers:
        return None
    return Problem(
        f"{wanted.draft_tokens} draft tokens for {layers} MTP layers",
        f"at most {layers}, or a multiple of it",
        f"set NUM_SPECULATIVE_TOKENS={layers}",
    )


@check(Wild("KeyError: ...mtp_block.ffn.experts.routed_experts.w13_weight", f"{_PULLS}/43319", (16,), "for real"))
def bf16_draft_needs_a_patch(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """A BF16 draft head under a trunk of compressed-tensors is built by a patch only."""
    patch = "build-bf16-draft-heads"
    if not wanted.lacks(patch) or not _drafts(checkpoint, wanted, "unquantized", "w4a16", "nvfp4"):
        return None
    return Problem("a BF16 draft head", f"a vLLM with the patch {patch}", f"{PATCH}, or {WITHOUT}")


@check(Wild("V4-Pro: right answers, and 0 of 141 draft tokens accepted", _PRO, (19,), "for real"))
def mxfp4_draft_needs_a_patch(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """DeepSeek's own draft experts under NVFP4 ones are told apart by a patch only."""
    patch = "load-mxfp4-draft-experts"
    if not wanted.lacks(patch) or not _drafts(checkpoint, wanted, "fp8-mxfp4", "modelopt-nvfp4"):
        return None
    return Problem("MXFP4 draft experts under NVFP4 ones", f"a vLLM with the patch {patch}", f"{PATCH}, or {WITHOUT}")


def _drafts(checkpoint: Checkpoint, wanted: Wanted, stored: str, *trunks: str) -> bool:
    """Tell whether drafting is by an MTP head that is `stored` so under a trunk of one of these schemes."""
    trunk, draft = (layout.scheme(checkpoint, prefix) for prefix in ("layers.0", "mtp.0"))
    return bool(wanted.drafts_with_mtp and draft and draft.name == stored and trunk and trunk.name in trunks)


def _has(checkpoint: Checkpoint, prefix: str) -> bool:
    return any(name.startswith(f"{prefix}.") for name in checkpoint.draft_tensors)


def _is_dspark(checkpoint: Checkpoint) -> bool:
    """Tell by a tensor that vLLM 0.32.0's DSpark drafter has and its MTP layer has not."""
    return any(f"mtp.0.main_proj.{kind}" in checkpoint.tensors for kind in ("weight", "scale", "weight_packed"))


V4_CHECKS: tuple[Check, ...] = (
    draft_layers_declared,
    draft_head_present,
    draft_head_complete,
    draft_is_mtp,
    draft_is_dspark,
    draft_tokens_divide,
    bf16_draft_needs_a_patch,
    mxfp4_draft_needs_a_patch,
)
