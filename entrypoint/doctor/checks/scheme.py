"""Check how weights are stored against config.json, the model and tensor parallelism."""

from __future__ import annotations

from ...checkpoint import layout, scalars
from ...checkpoint.described import number
from ...checkpoint.identify import scheme as scheme_of
from ...checkpoint.read import Checkpoint
from ...problem import Problem, check
from ..checkpoint_requirements import CheckpointRequirements
from .config import config_fields
from .targets import TODAY, UNTIL_0_31, name_experts, targets
from .wording import AS_ITSELF, FETCH, some

_MOE = (
    "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/layers/quantization/compressed_tensors"
    "/compressed_tensors_moe/compressed_tensors_moe.py"
)
_GLOBAL_SCALE = {"nvfp4": "weight_global_scale", "modelopt-nvfp4": "weight_scale_2"}
_V4 = "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/models/deepseek_v4"


@check(
    symptom="Weights stay uninitialized, without a message, and answers are nonsense",
    link=f"{_V4}/nvidia/model.py",
    remedy=FETCH,
    tried="for real",
)
def target_model_complete(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """No tensor of a layer is missing. vLLM checks that only in unquantized checkpoints."""
    if not checkpoint.is_legible or config_fields(checkpoint, required):
        return None  # without these fields, config.json does not say which tensors exist
    lost = list(layout.missing_outside(checkpoint))
    for prefix in layout.target_layers(checkpoint.config.value):
        lost += layout.missing(checkpoint, prefix)
    return Problem(f"no {some(lost)} among the tensors", "every tensor of every layer") if lost else None


@check(
    symptom="KeyError: ...experts.w13_weight_packed, or out of memory",
    link=f"{_V4}/quant_config.py",
    remedy=FETCH,
    tried="for real",
)
def quantization_config_matches(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The experts are stored as quantization_config declares, by which vLLM builds them."""
    declared, stored = scheme_of(checkpoint.config.value), layout.scheme(checkpoint, "layers.0")
    if stored is None or stored.name == declared or (stored.name, declared) == ("w4a16", "w4a8"):
        return None
    return Problem(
        f"the experts are stored as {stored.name}, but quantization_config in config.json declares {declared}",
        "config.json and weights from one checkpoint",
    )


@check(
    symptom="A draft backend or a load format that is meant for other weights",
    link=f"{_V4}/nvidia/mtp.py",
    remedy=AS_ITSELF,
    tried="for real",
)
def scheme_matches_model(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """Target model and draft head have the storage formats of the model that the folder is served as."""
    target, draft = (layout.scheme(checkpoint, prefix) for prefix in ("layers.0", "mtp.0"))
    stored = [target.name] if target and target.name != required.scheme else []
    stored += [f"a drafter in {draft.name}"] if draft and draft.name != required.drafter_scheme else []
    if not required.scheme or not stored:
        return None
    return Problem(
        f"{checkpoint.folder} holds {' and '.join(stored)}",
        f"{required.scheme}, and a drafter in {required.drafter_scheme}, as in model {required.model}",
        fatal=False,
    )


@check(
    symptom="Tried to allocate 4.00 GiB in make_layers: experts built unquantized",
    link=_MOE,
    remedy="restore config.json from the original repository",
    failures=(11,),
    tried="for real",
)
def experts_targeted(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """A target of compressed-tensors matches the routed experts; unmatched ones are built unquantized."""
    names, stored = list(targets(checkpoint)), layout.scheme(checkpoint, "layers.0")
    if not names or stored is None or "weight_packed" not in stored.tensors:  # compressed-tensors packs
        return None
    if name_experts(names, TODAY) or name_experts(names, UNTIL_0_31):
        return None
    return Problem(
        f"no target in quantization_config matches the experts: {some(names)}",
        r"a target such as re:.*experts\.\d+\.(w1|w2|w3)$",
    )


@check(
    symptom="vLLM only warns: w1_weight_scale_2 must match w3_weight_scale_2. Accuracy may be affected",
    link="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/layers/quantization/modelopt.py",
    remedy="fetch a checkpoint that was quantized with one scale for w1 and w3",
    tried="for real",
)
def expert_scales_equal(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """w1 and w3 of an expert have one NVFP4 global scale. vLLM applies that of w1 to both. Two layers are read."""
    stored = layout.scheme(checkpoint, "layers.0")
    if stored is None or stored.name not in _GLOBAL_SCALE:
        return None
    layers = layout.target_layers(checkpoint.config.value)
    different = scalars.unequal(checkpoint, {layers[0], layers[-1]} if layers else (), _GLOBAL_SCALE[stored.name])
    if not different:
        return None
    return Problem(
        f"w1 and w3 have different {_GLOBAL_SCALE[stored.name]} in {some(different)}", "one global scale for both"
    )


@check(
    symptom="AssertionError in DeepseekV4Attention",
    link=f"{_V4}/attention.py",
    remedy="lower --tp",
    tried="for real",
)
def heads_split(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """Each rank gets the same number of attention heads and of output groups."""
    size, config = required.tensor_parallel_size, checkpoint.config.value
    uneven = [f"{number(config, n)} {n}" for n in ("num_attention_heads", "o_groups") if number(config, n) % size]
    if not uneven:
        return None
    return Problem(
        f"{size} GPUs cannot share {' and '.join(uneven)} evenly", "a tensor parallel size that divides both numbers"
    )


@check(
    symptom="Invalid thread config: ... group_size",
    link="https://github.com/vllm-project/vllm/issues/41511",
    remedy="lower --tp, or add --enable-expert-parallel",
    failures=(27,),
    tried="for real",
)
def experts_split(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """A rank's share of an expert is a whole number of quantization groups."""
    stored, inter = layout.scheme(checkpoint, "layers.0"), number(checkpoint.config.value, "moe_intermediate_size")
    size = 1 if required.expert_parallel else required.tensor_parallel_size
    if stored is None or inter % (size * stored.group) == 0:
        return None
    return Problem(
        f"{size} GPUs cannot share experts with {inter} inputs in groups of {stored.group}",
        f"a multiple of {size * stored.group} inputs",
    )
