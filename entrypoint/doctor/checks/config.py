"""Check config.json of a DeepSeek-V4 against vLLM and the tensors."""

from __future__ import annotations

from ...checkpoint import fields, layout
from ...checkpoint.described import number
from ...checkpoint.read import Checkpoint
from ...problem import Problem, check
from ..checkpoint_requirements import CheckpointRequirements
from .wording import FETCH, ORIGINAL, some

FIELDS = (
    "compress_ratios", "compress_rope_theta", "hc_eps", "hc_mult", "hc_sinkhorn_iters", "head_dim", "hidden_act",
    "hidden_size", "index_head_dim", "index_n_heads", "index_topk", "moe_intermediate_size", "n_routed_experts",
    "n_shared_experts", "norm_topk_prob", "num_attention_heads", "num_experts_per_tok", "num_hash_layers",
    "num_hidden_layers", "o_groups", "o_lora_rank", "q_lora_rank", "qk_rope_head_dim", "rms_norm_eps",
    "sliding_window", "swiglu_limit", "vocab_size",
)  # fmt: skip
"""What vLLM 0.32.0's DeepSeek-V4 reads without a default."""
RATIOS = (0, 1, 4, 128)
EXPERT_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384, 448, 512, 576)
"""What the router's CUDA kernel of the hash layers is compiled for."""
_VLLM = "https://github.com/vllm-project/vllm/blob/v0.32.0"
_V4 = f"{_VLLM}/vllm/models/deepseek_v4"


@check(
    symptom="'DeepseekV4Config' object has no attribute 'compress_ratios'",
    link=f"{_V4}/attention.py",
    remedy=ORIGINAL,
    failures=(12,),
    tried="for real",
)
def config_fields(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """config.json has every field that the engine reads without a default."""
    absent = [name for name in FIELDS if name not in checkpoint.config.value]
    if not absent:
        return None
    return Problem(f"config.json lacks {some(absent, 6)}", "every field of the original")


@check(
    symptom="TypeError: 'str' object cannot be interpreted as an integer, or KeyError: 'quant_method'",
    link=f"{_V4}/nvidia/model.py",
    remedy=ORIGINAL,
    failures=(12,),
    tried="for real",
)
def config_types(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """Sizes in config.json are whole numbers from 1 up, and quantization_config is a table that names its method."""
    wrong = fields.wrong(checkpoint.config.value)
    return Problem(f"config.json: {some(wrong, 6)}", "the fields of the original") if wrong else None


@check(
    symptom="IndexError, or Invalid compress ratio",
    link=f"{_V4}/compressor.py",
    remedy=ORIGINAL,
    failures=(12,),
    tried="for real",
)
def compress_ratios(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """Each layer has a compress ratio that vLLM has kernels for."""
    ratios = checkpoint.config.value.get("compress_ratios")
    layers = number(checkpoint.config.value, "num_hidden_layers")
    if ratios is None or (isinstance(ratios, list) and len(ratios) >= layers and all(r in RATIOS for r in ratios)):
        return None
    entries = f"{len(ratios)} entries, {some(map(str, ratios), 6)}" if isinstance(ratios, list) else repr(ratios)
    return Problem(
        f"compress_ratios in config.json: {entries}",
        f"at least {layers} entries, each of them one of {', '.join(map(str, RATIOS))}",
    )


@check(
    symptom="ValueError: `num_hidden_layers` (43) must be equal to the number of `layer_types` (44)",
    link="https://huggingface.co/canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP",
    remedy="delete layer_types from config.json; compress_ratios holds the same information",
    tried="for real",
)
def layer_types(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """`layer_types`, where it was added, has one entry per layer and none for the draft head."""
    types, layers = checkpoint.config.value.get("layer_types"), number(checkpoint.config.value, "num_hidden_layers")
    if not isinstance(types, list) or len(types) == layers:
        return None
    return Problem(
        f"{len(types)} layer_types in config.json for {layers} layers",
        "one per layer, or none at all",
    )


@check(
    symptom="Answers degrade in long contexts, without an error",
    link=f"{_V4}/common/rope.py",
    remedy=ORIGINAL,
    failures=(12,),
    tried="for real",
)
def long_context_rope(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """config.json has the YaRN scaling of the compressed layers; without it they get unscaled positions."""
    config = checkpoint.config.value
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    rope = rope.get("compress", rope) if isinstance(rope, dict) else {}
    if isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default")) != "default":
        return None
    return Problem("config.json has no rope_scaling", "the YaRN scaling of the original")


@check(
    symptom="KeyError: ...ffn.gate.e_score_correction_bias",
    link=f"{_V4}/nvidia/model.py",
    remedy=ORIGINAL,
    failures=(13,),
    tried="for real",
)
def router_bias(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """A router that is stored with a bias is built with one."""
    biased = [f"{p}.ffn.gate.bias" for p in layout.target_layers(checkpoint.config.value)]
    if checkpoint.config.value.get("topk_method") == "noaux_tc" or not any(n in checkpoint.tensors for n in biased):
        return None
    return Problem(
        "the routers have a bias, but config.json does not set topk_method to noaux_tc",
        "topk_method noaux_tc in config.json",
    )


@check(
    symptom="RuntimeError: topkGatingSoftplusSqrtKernelLauncher ... Unsupported expert number: 144",
    link=f"{_VLLM}/csrc/libtorch_stable/moe/topk_softplus_sqrt_kernels.cu",
    remedy="serve the unpruned checkpoint",
    failures=(51,),
    tried="for real",
)
def expert_count(checkpoint: Checkpoint, required: CheckpointRequirements) -> Problem | None:
    """The router has a kernel for this number of experts; for pruned checkpoints it often has none."""
    experts = checkpoint.config.value.get("n_routed_experts")
    if experts is None or experts in EXPERT_COUNTS or required.hardware == "cpu":
        return None
    counts = ", ".join(map(str, EXPERT_COUNTS))
    return Problem(f"{experts} routed experts", f"one of {counts}")


@check(
    symptom="Unsupported head_dim for fused quant+cache",
    link=f"{_V4}/compressor.py",
    remedy=ORIGINAL,
    tried="for real",
)
def head_sizes(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The attention's head sizes are those that its kernels support."""
    sizes = {"head_dim": 512, "index_head_dim": 128}
    config = checkpoint.config.value
    other = [f"{name} {config[name]}" for name, size in sizes.items() if name in config and config[name] != size]
    if not other:
        return None
    return Problem(f"{' and '.join(other)} in config.json", "head_dim 512 and index_head_dim 128")


@check(
    symptom="AssertionError or size mismatch while loading",
    link=f"{_V4}/nvidia/model.py",
    remedy=FETCH,
    tried="for real",
)
def config_describes_weights(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """Sizes in config.json match the tensors, so both are from one checkpoint."""
    shapes = {
        "embed.weight": ("vocab_size", "hidden_size"),
        "layers.0.ffn.gate.weight": ("n_routed_experts", "hidden_size"),
        "layers.0.attn.attn_sink": ("num_attention_heads",),
        "layers.0.attn.q_norm.weight": ("q_lora_rank",),
    }
    config = checkpoint.config.value
    for name, sizes in shapes.items():
        declared = [config.get(size) for size in sizes]
        if name in checkpoint.tensors and (shape := list(checkpoint.tensors[name]["shape"])) != declared:
            return Problem(
                f"{name} is {shape}, but config.json declares {declared} ({', '.join(sizes)})",
                "config.json and weights from one checkpoint",
            )
    return None
