"""config.json of a DeepSeek-V4, against vLLM 0.32.0 and the tensors. Each check takes (Checkpoint, Wanted)."""

from __future__ import annotations

from ...checkpoint import layout
from ...checkpoint.layout import number
from ...checkpoint.read import Checkpoint
from ...problem import Check, Problem, Wild, check
from ..checkpoint_requirements import Wanted
from .shard import FETCH, some

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
ORIGINAL = "restore config.json from the original repository: `save_pretrained` of transformers rewrites it"
_VLLM = "https://github.com/vllm-project/vllm/blob/v0.32.0"
_V4 = f"{_VLLM}/vllm/models/deepseek_v4"


@check(
    Wild(
        "OSError or JSONDecodeError before anything is loaded",
        f"{_VLLM}/vllm/transformers_utils/config.py",
        (),
        "for real",
    )
)
def config_readable(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """config.json is there, is JSON, and names its architecture."""
    config = checkpoint.config
    if config.absent:
        return Problem(f"no config.json in {checkpoint.folder}", "config.json beside the weights", FETCH)
    fields = [name for name in ("model_type", "architectures") if not config.value.get(name)]
    if not config.fault and not fields:
        return None
    return Problem(f"config.json: {config.fault or 'no ' + ' and no '.join(fields)}", "the model's own", ORIGINAL)


@check(Wild("OSError: Can't load tokenizer, after minutes", f"{_VLLM}/vllm/tokenizers/deepseek_v4.py", (), "for real"))
def tokenizer_present(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """The tokenizer's files lie beside the weights."""
    absent = [name for name in ("tokenizer.json", "tokenizer_config.json") if name not in checkpoint.files]
    if not absent:
        return None
    return Problem(f"no {' and no '.join(absent)} in {checkpoint.folder}", "the model's tokenizer", FETCH)


@check(Wild("'DeepseekV4Config' object has no attribute 'compress_ratios'", f"{_V4}/attention.py", (12,), "for real"))
def config_fields(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """Every field is there that the engine reads without a default."""
    absent = [name for name in FIELDS if name not in checkpoint.config.value]
    if not absent:
        return None
    return Problem(f"config.json lacks {some(absent, 6)}", "every field of the original", ORIGINAL)


@check(Wild("IndexError, or Invalid compress ratio", f"{_V4}/compressor.py", (12,), "for real"))
def compress_ratios(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """Each layer has a ratio that kernels exist for."""
    ratios = checkpoint.config.value.get("compress_ratios")
    layers = number(checkpoint.config.value, "num_hidden_layers")
    if ratios is None or (isinstance(ratios, list) and len(ratios) >= layers and all(r in RATIOS for r in ratios)):
        return None
    entries = f"{len(ratios)} entries, {some(map(str, ratios), 6)}" if isinstance(ratios, list) else repr(ratios)
    return Problem(f"compress_ratios in config.json: {entries}", f"{layers} of 0, 4 and 128 or more", ORIGINAL)


@check(
    Wild(
        "ValueError: `num_hidden_layers` (43) must be equal to the number of `layer_types` (44)",
        "https://huggingface.co/canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP",
        tried="for real",
    )
)
def layer_types(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """`layer_types`, where it was added, has one entry per layer and none for the draft head."""
    types, layers = checkpoint.config.value.get("layer_types"), number(checkpoint.config.value, "num_hidden_layers")
    if not isinstance(types, list) or len(types) == layers:
        return None
    return Problem(
        f"{len(types)} layer_types in config.json for {layers} layers",
        "one per layer, or none at all",
        "delete layer_types from config.json: compress_ratios says the same",
    )


@check(Wild("Answers fall apart in long contexts, without an error", f"{_V4}/common/rope.py", (12,), "for real"))
def long_context_rope(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """The compressed layers have their YaRN scaling: without the field they are built with plain positions."""
    config = checkpoint.config.value
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    rope = rope.get("compress", rope) if isinstance(rope, dict) else {}
    if isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default")) != "default":
        return None
    return Problem("config.json has no rope_scaling", "the YaRN scaling of the original", ORIGINAL)


@check(Wild("KeyError: ...ffn.gate.e_score_correction_bias", f"{_V4}/nvidia/model.py", (13,), "for real"))
def router_bias(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """A router that is stored with a bias is built with one."""
    biased = [f"{p}.ffn.gate.bias" for p in layout.trunk(checkpoint.config.value)]
    if checkpoint.config.value.get("topk_method") == "noaux_tc" or not any(n in checkpoint.tensors for n in biased):
        return None
    return Problem("routers with a bias, and no topk_method noaux_tc in config.json", "topk_method noaux_tc", ORIGINAL)


@check(
    Wild(
        "RuntimeError: topkGatingSoftplusSqrtKernelLauncher ... Unsupported expert number: 144",
        f"{_VLLM}/csrc/libtorch_stable/moe/topk_softplus_sqrt_kernels.cu",
        (51,),
        "for real",
    )
)
def expert_count(checkpoint: Checkpoint, wanted: Wanted) -> Problem | None:
    """The router has a kernel for this number of experts; pruned checkpoints often have another."""
    experts = checkpoint.config.value.get("n_routed_experts")
    if experts is None or experts in EXPERT_COUNTS or wanted.hardware == "cpu":
        return None
    counts = ", ".join(map(str, EXPERT_COUNTS))
    return Problem(f"{experts} routed experts", f"one of {counts}", "serve the checkpoint that was not pruned")


@check(Wild("Unsupported head_dim for fused quant+cache", f"{_V4}/compressor.py", (), "for real"))
def head_sizes(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """The attention's head sizes are the only ones that its kernels have."""
    sizes = {"head_dim": 512, "index_head_dim": 128}
    config = checkpoint.config.value
    other = [f"{name} {config[name]}" for name, size in sizes.items() if name in config and config[name] != size]
    if not other:
        return None
    return Problem(f"{' and '.join(other)} in config.json", "head_dim 512 and index_head_dim 128", ORIGINAL)


@check(Wild("AssertionError or size mismatch while loading", f"{_V4}/nvidia/model.py", (), "for real"))
def config_describes_weights(checkpoint: Checkpoint, _wanted: Wanted) -> Problem | None:
    """Sizes in config.json are those of the tensors: both are of one checkpoint."""
    shapes = {
        "embed.weight": ("vocab_size", "hidden_size"),
        "layers.0.ffn.gate.weight": ("n_routed_experts", "hidden_size"),
        "layers.0.attn.attn_sink": ("num_attention_heads",),
        "layers.0.attn.q_norm.weight": ("q_lora_rank",),
    }
    config = checkpoint.config.value
    for name, fields in shapes.items():
        said = [config.get(field) for field in fields]
        if name in checkpoint.tensors and (shape := list(checkpoint.tensors[name]["shape"])) != said:
            return Problem(
                f"{name} is {shape}, and config.json says {said} ({', '.join(fields)})",
                "config.json and weights of one checkpoint",
                FETCH,
            )
    return None


CHECKS: tuple[Check, ...] = (config_readable, tokenizer_present)
V4_CHECKS: tuple[Check, ...] = (
    config_fields,
    compress_ratios,
    layer_types,
    long_context_rope,
    router_bias,
    expert_count,
    head_sizes,
    config_describes_weights,
)
