"""How weights are stored, against config.json, the model and the split. Each check takes (Checkpoint, Wanted)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...checkpoint import layout
from ...checkpoint.identify import architecture as architecture_of
from ...checkpoint.identify import scheme as scheme_of
from ...checkpoint.layout import number
from ...checkpoint.read import Checkpoint
from ...problem import Check, Problem, Wild, check
from ..checkpoint_requirements import Wanted
from .config import config_fields
from .shard import FETCH, some

PATCH = "run `dsv4 patch apply`"
_MOE = (
    "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/layers/quantization/compressed_tensors"
    "/compressed_tensors_moe/compressed_tensors_moe.py"
)
_V4 = "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/models/deepseek_v4"


@check(Wild("Weights stay as they were allocated: no message, and nonsense", f"{_V4}/nvidia/model.py", (), "for real"))
def trunk_complete(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """Every tensor of every layer is there. vLLM counts them only in unquantized checkpoints."""
    if not checkpoint.is_legible or config_fields(checkpoint, wanted):
        return None  # without its fields, config.json does not say which tensors there are
    lost = list(layout.missing_outside(checkpoint))
    for prefix in layout.trunk(checkpoint.config.value):
        lost += layout.missing(checkpoint, prefix)
    return Problem(f"no {some(lost)} among the tensors", "every tensor of every layer", FETCH) if lost else None


@check(Wild("Served with flags that were chosen for another model", f"{_V4}/__init__.py", (), "for real"))
def architecture_matches(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """The folder holds the architecture of the model that it is served as."""
    seen = architecture_of(dict(checkpoint.config.value))
    if not wanted.architecture or not checkpoint.config.value or seen == wanted.architecture:
        return None
    return Problem(
        f"{checkpoint.folder} holds {seen}",
        f"{wanted.architecture}, which model {wanted.model} is",
        "give --model the folder without NAME=, and the model is read from it",
    )


@check(Wild("KeyError: ...experts.w13_weight_packed, or out of memory", f"{_V4}/quant_config.py", (), "for real"))
def quantization_config_matches(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """The experts are stored as quantization_config says, or vLLM builds others than it loads."""
    config, said = checkpoint.config.value, scheme_of(dict(checkpoint.config.value))
    stored = layout.scheme(checkpoint, "layers.0")
    if stored is None or stored.name == said:
        return None
    if (stored.name, said, config.get("expert_dtype")) == ("fp8", "fp8-mxfp4", "fp8"):
        return None  # DeepSeek-V4-Flash-Base: FP8 experts, and it says so
    return Problem(
        f"experts stored as {stored.name}, and quantization_config of config.json says {said}",
        "config.json and weights of one checkpoint",
        FETCH,
    )


@check(
    Wild("A draft backend or a load format that was chosen for other weights", f"{_V4}/nvidia/mtp.py", (), "for real")
)
def scheme_matches_model(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """Trunk and draft head are stored as those of the model that the folder is served as."""
    trunk, draft = (layout.scheme(checkpoint, prefix) for prefix in ("layers.0", "mtp.0"))
    seen = [trunk.name] if trunk and trunk.name != wanted.scheme else []
    seen += [f"a {draft.draft_head} draft head"] if draft and draft.draft_head != wanted.draft_head else []
    if not wanted.scheme or not seen:
        return None
    return Problem(
        f"{checkpoint.folder} holds {' and '.join(seen)}",
        f"{wanted.scheme} and a {wanted.draft_head} draft head, which model {wanted.model} has",
        "give --model the folder without NAME=, and the model is read from it",
        fatal=False,
    )


@check(Wild("Tried to allocate 4.00 GiB in make_layers: experts built unquantized", _MOE, (11,), "for real"))
def experts_targeted(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """A target of compressed-tensors names the routed experts, or they are built unquantized."""
    targets = list(_targets(checkpoint))
    if not targets or layout.scheme(checkpoint, "layers.0") in (None, layout.SCHEMES[-1]):
        return None
    if _names(targets, ("w1", "w2", "w3")) or _names(targets, _OLD):
        return None
    return Problem(
        f"no target in quantization_config matches the experts: {some(targets)}",
        r"a target such as re:.*experts\.\d+\.(w1|w2|w3)$",
        "restore config.json from the original repository",
    )


@check(Wild("KeyError: ...routed_experts.w13_weight_packed, or out of memory", _MOE, (11,), "for real"))
def expert_targets_need_a_patch(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """Targets by the names that vLLM used until 0.31 are matched by a patch only."""
    targets = list(_targets(checkpoint))
    old = _names(targets, _OLD) and not _names(targets, ("w1", "w2", "w3"))
    patch = "match-published-expert-targets"
    if not old or not wanted.lacks(patch):
        return None
    return Problem("expert targets named gate_proj", f"a vLLM with the patch {patch}", PATCH)


@check(
    Wild(
        "KeyError: layers.10.attn.compressor.fused_wkv_wgate.weight_scale",
        "https://huggingface.co/canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP",
        (8,),
        "for real",
    )
)
def fp8_compressors_need_a_patch(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """Compressors in FP8 (Acti; W4A16 before 2026-05-24) are loaded by a patch only."""
    config = checkpoint.config.value
    weights = (f"{c}.wkv.weight" for prefix in layout.trunk(config) for c in layout.compressors(config, prefix))
    patch = "load-fp8-compressors-as-bf16"
    if not wanted.lacks(patch) or not any(checkpoint.dtype(weight) == "F8_E4M3" for weight in weights):
        return None
    return Problem("compressors stored in FP8", f"a vLLM with the patch {patch}", PATCH)


@check(Wild("AssertionError in DeepseekV4Attention", f"{_V4}/attention.py", (), "for real"))
def heads_split(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """Each rank gets the same number of attention heads and of output groups."""
    size, config = wanted.tensor_parallel_size, checkpoint.config.value
    uneven = [f"{number(config, n)} {n}" for n in ("num_attention_heads", "o_groups") if number(config, n) % size]
    if not uneven:
        return None
    return Problem(f"{' and '.join(uneven)} for {size} GPUs", "a share for every GPU", "lower --tp")


@check(
    Wild(
        "Invalid thread config: ... group_size", "https://github.com/vllm-project/vllm/issues/41511", (27,), "for real"
    )
)
def experts_split(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """A rank's share of an expert is a whole number of the groups that share a scale."""
    stored, inter = layout.scheme(checkpoint, "layers.0"), number(checkpoint.config.value, "moe_intermediate_size")
    size = 1 if wanted.expert_parallel else wanted.tensor_parallel_size
    if stored is None or inter % (size * stored.group) == 0:
        return None
    return Problem(
        f"experts of {inter} inputs in groups of {stored.group} for {size} GPUs",
        f"a multiple of {size * stored.group}",
        "lower --tp, or add --enable-expert-parallel",
    )


_OLD = ("gate_proj", "up_proj", "down_proj")


def _targets(checkpoint: Checkpoint) -> Iterator[str]:
    quantization = checkpoint.config.value.get("quantization_config")
    groups = quantization.get("config_groups") if isinstance(quantization, dict) else None
    for group in groups.values() if isinstance(groups, dict) else ():
        targets = group.get("targets") if isinstance(group, dict) else None
        yield from map(str, targets if isinstance(targets, list) else ())


def _names(targets: list[str], projections: tuple[str, ...]) -> bool:
    """Tell whether each of these projections of an expert is a target, as compressed-tensors matches them."""
    modules = [f"model.layers.0.ffn.experts.0.{projection}" for projection in projections]
    return all(any(_matches(target, module) for target in targets) for module in modules)


def _matches(target: str, module: str) -> bool:
    if not target.startswith("re:"):
        return target == module
    try:
        return re.match(target[3:], module) is not None
    except re.error:
        return False


CHECKS: tuple[Check, ...] = (architecture_matches,)
V4_CHECKS: tuple[Check, ...] = (
    trunk_complete,
    quantization_config_matches,
    scheme_matches_model,
    experts_targeted,
    expert_targets_need_a_patch,
    fp8_compressors_need_a_patch,
    heads_split,
    experts_split,
)
