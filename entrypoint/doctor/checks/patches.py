"""Find storage formats that only a patched vLLM loads."""

from __future__ import annotations

from ...checkpoint import layout
from ...checkpoint.read import Checkpoint
from ...problem import Problem, check
from ..checkpoint_requirements import CheckpointRequirements
from .targets import TODAY, UNTIL_0_31, name_experts, targets
from .wording import NO_DRAFT, PATCH

_VLLM = "https://github.com/vllm-project/vllm"
_CARDS = "https://huggingface.co/canada-quant"
_MOE = "vllm/model_executor/layers/quantization/compressed_tensors/compressed_tensors_moe/compressed_tensors_moe.py"


@check(
    symptom="KeyError: ...routed_experts.w13_weight_packed, or out of memory",
    link=f"{_VLLM}/blob/v0.32.0/{_MOE}",
    remedy=PATCH,
    failures=(11,),
    tried="for real",
)
def expert_targets_need_a_patch(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """Expert targets with the names of vLLM 0.31 and older match only with a patch."""
    names = list(targets(checkpoint))
    old = name_experts(names, UNTIL_0_31) and not name_experts(names, TODAY)
    return _needs("match-published-expert-targets", "expert targets named gate_proj", required) if old else None


@check(
    symptom="KeyError: layers.10.attn.compressor.fused_wkv_wgate.weight_scale",
    link=f"{_CARDS}/DeepSeek-V4-Flash-W4A16-FP8-MTP",
    remedy=PATCH,
    failures=(8,),
    tried="for real",
)
def fp8_compressors_need_a_patch(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """Compressors in FP8 (Acti; W4A16 before 2026-05-24) load only with a patch."""
    config = checkpoint.config.value
    compressors = (c for prefix in layout.target_layers(config) for c in layout.compressors(config, prefix))
    fp8 = any(checkpoint.dtype(f"{compressor}.wkv.weight") == "F8_E4M3" for compressor in compressors)
    return _needs("load-fp8-compressors-as-bf16", "compressors stored in FP8", required) if fp8 else None


@check(
    symptom="KeyError: ...mtp_block.ffn.experts.routed_experts.w13_weight",
    link=f"{_VLLM}/pull/43319",
    remedy=f"{PATCH}, or {NO_DRAFT}",
    failures=(16,),
    tried="for real",
)
def bf16_draft_needs_a_patch(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """A BF16 draft head of a compressed-tensors target model is built only with a patch."""
    bf16 = _drafts(checkpoint, required, "unquantized", "w4a16", "nvfp4")
    return _needs("build-bf16-draft-heads", "a BF16 draft head", required) if bf16 else None


@check(
    symptom="V4-Pro: correct answers, but 0 of 141 draft tokens accepted",
    link=f"{_CARDS}/DeepSeek-V4-Pro-NVFP4-FP8-MTP",
    remedy=f"{PATCH}, or {NO_DRAFT}",
    failures=(19,),
    tried="for real",
)
def mxfp4_draft_needs_a_patch(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """DeepSeek's own MXFP4 draft experts of an NVFP4 target model are recognized only with a patch."""
    mxfp4 = _drafts(checkpoint, required, "fp8-mxfp4", "modelopt-nvfp4")
    return (
        _needs("load-mxfp4-draft-experts", "MXFP4 draft experts with an NVFP4 target model", required)
        if mxfp4
        else None
    )


def _needs(patch: str, seen: str, required: CheckpointRequirements) -> Problem | None:
    """Return the problem where the installed vLLM is known to lack the patch."""
    return Problem(seen, f"a vLLM with the patch {patch}") if required.lacks(patch) else None


def _drafts(checkpoint: Checkpoint, required: CheckpointRequirements, stored: str, *targets: str) -> bool:
    """Tell whether an MTP head in format `stored` drafts for a target model of one of these schemes."""
    target, draft = (layout.scheme(checkpoint, prefix) for prefix in ("layers.0", "mtp.0"))
    return bool(required.drafts_with_mtp and draft and draft.name == stored and target and target.name in targets)
