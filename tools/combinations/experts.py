"""Which MoE backends vLLM starts with, by scheme of the experts, capability and parallelism."""

import importlib
from types import SimpleNamespace
from typing import Any, get_args
from unittest import mock

import torch

from .platform import forget, installed

SIZES = {"flash": (4096, 2048, 256), "pro": (7168, 3072, 384), "v41-flash": (5120, 2304, 384)}
"""Hidden size, intermediate size and experts of a layer (config.json of DeepSeek-V4-Flash, -Pro and V4.1-Flash)."""
OF_V4_ALONE = {"fp8", "w4a16", "unquantized"}
"""Schemes that no DeepSeek-V4.1 has; vLLM serves its experts by the code of DeepSeek-V4."""
TOP_K = 6
SWIGLU_LIMIT = 10.0
GROUP = 128
"""Of INT4 weights in the published W4A16 checkpoints."""
MODES = {"tp": (1, False), "ep": (1, True), "dp": (2, False), "dp+ep": (2, True)}
"""Replicas of data parallelism, and whether experts are split instead of their weights."""
TENSOR_PARALLEL = {"tp": (1, 2, 4, 8), "ep": (2, 4, 8), "dp": (1, 2, 4), "dp+ep": (1, 2, 4, 8)}
INT4 = {"VLLM_USE_FLASHINFER_MOE_INT4": "1"}

NAME = "vllm.model_executor.layers.fused_moe"


def sizes(scheme: str) -> list[str]:
    """Return the models that have a scheme, by their names in SIZES."""
    return [name for name in SIZES if not (name.startswith("v41") and scheme in OF_V4_ALONE)]


def moe_config(backend: str, size: str, tensor_parallel: int, mode: str, *, hashed: bool) -> Any:
    """Return the FusedMoEConfig that vLLM makes for one layer of DeepSeek-V4."""
    config = importlib.import_module(f"{NAME}.config")
    activation = importlib.import_module(f"{NAME}.activation").MoEActivation.SILU
    hidden, intermediate, experts = SIZES[size]
    replicas, split = MODES[mode]
    group = SimpleNamespace(rank_in_group=0, world_size=1)
    with (
        mock.patch.object(config, "get_dp_group", return_value=group),
        mock.patch.object(config, "get_tensor_model_parallel_rank", return_value=0),
    ):
        parallel = config.FusedMoEParallelConfig.make(
            tp_size_=tensor_parallel,
            pcp_size_=1,
            dp_size_=replicas,
            sp_size_=tensor_parallel if split and replicas > 1 else 1,
            vllm_parallel_config=SimpleNamespace(
                enable_expert_parallel=split, all2all_backend=all2all(backend), enable_eplb=False
            ),
        )
    return config.FusedMoEConfig(
        num_experts=experts,
        experts_per_token=TOP_K,
        hidden_dim=hidden,
        intermediate_size=intermediate,
        num_local_experts=experts // parallel.ep_size,
        num_logical_experts=experts,
        activation=activation,
        device="cpu",
        routing_method=config.get_routing_method_type("sqrtsoftplus", TOP_K, True, None, True),
        moe_parallel_config=parallel,
        in_dtype=torch.bfloat16,
        router_logits_dtype=torch.float32,
        moe_backend=backend,
        has_hash_routing=hashed,
        swiglu_limit=SWIGLU_LIMIT,
    )


def all2all(backend: str) -> str:
    """Return --all2all-backend, where the user leaves it out."""
    kernel = importlib.import_module("vllm.config.kernel")
    parallel = SimpleNamespace(all2all_backend="allgather_reducescatter")
    kernel.bind_passthrough_all2all_backend(backend, parallel)
    return str(parallel.all2all_backend)


def select(scheme: str, config: Any) -> Any:
    """Return the backend that vLLM selects for experts of a scheme; it raises where it has none."""
    keys = importlib.import_module("vllm.model_executor.layers.quantization.utils.quant_utils")
    oracle = {name: importlib.import_module(f"{NAME}.oracle.{name}") for name in ("mxfp4", "nvfp4", "fp8")}
    if scheme == "fp8-mxfp4":
        return oracle["mxfp4"].select_deepseek_v4_mxfp4_moe_backend(config)[0]
    if scheme in ("nvfp4", "modelopt-nvfp4"):
        return oracle["nvfp4"].select_nvfp4_moe_backend(config, keys.kNvfp4Static, keys.kNvfp4Dynamic)[0]
    if scheme == "fp8":
        block, _ = oracle["fp8"].resolve_fp8_moe_weight_block_shape(config, [128, 128], keys.kFp8Dynamic128Sym, True)
        weight = keys.create_fp8_quant_key(static=True, group_shape=keys.GroupShape(*block))
        return oracle["fp8"].select_fp8_moe_backend(config, weight, keys.kFp8Dynamic128Sym)[0]
    if scheme == "unquantized":
        return importlib.import_module(f"{NAME}.oracle.unquantized").select_unquantized_moe_backend(config)[0]
    int4 = importlib.import_module(f"{NAME}.oracle.int_wna16")
    arguments = importlib.import_module("compressed_tensors.quantization").QuantizationArgs
    weights = arguments(num_bits=4, type="int", strategy="group", group_size=GROUP, symmetric=True)
    key = keys.QuantKey(keys.kInt4Static.dtype, keys.kInt4StaticGroupScale, symmetric=True)
    return int4.select_wna16_moe_backend(config, key, weights, False, False, allow_tile_padding=True)[0]


SCHEMES = ("fp8-mxfp4", "modelopt-nvfp4", "nvfp4", "w4a16", "fp8", "unquantized")


def mega(scheme: str, mode: str) -> str:
    """Build a layer with DeepGEMM's mega MoE up to its weights; it raises where vLLM ends the start."""
    model = importlib.import_module("vllm.models.deepseek_v4.nvidia.model")
    factory = importlib.import_module(f"{NAME}.deep_gemm_mega_moe").get_deep_gemm_mega_moe_backend
    if scheme not in ("fp8-mxfp4", "fp8"):  # the patch refuse-mega-moe-without-mxfp4; vLLM itself ends with KeyError
        raise ValueError("not supported for experts other than MXFP4")
    settings = SimpleNamespace(
        swiglu_limit=SWIGLU_LIMIT, norm_topk_prob=True, scoring_func="sqrtsoftplus", hidden_size=4096,
        n_routed_experts=256, num_experts_per_tok=TOP_K, moe_intermediate_size=2048,
        expert_dtype="fp8" if scheme == "fp8" else "fp4",
    )  # fmt: skip
    config = SimpleNamespace(
        model_config=SimpleNamespace(hf_config=settings),
        quant_config=None,
        kernel_config=SimpleNamespace(moe_backend="deep_gemm_mega_moe"),
        parallel_config=SimpleNamespace(enable_expert_parallel=MODES[mode][1]),
    )
    with (
        mock.patch.object(model, "get_tensor_model_parallel_world_size", return_value=1),
        mock.patch.object(model, "GateLinear", side_effect=InterruptedError),
    ):
        try:
            model.DeepseekV4MoE(config, num_hash_layers=0)
        except InterruptedError:
            for hidden, intermediate, _ in SIZES.values():
                factory(torch.device("cpu"), hidden, intermediate)
    return "deep_gemm_mega_moe"


def attempt(scheme: str, backend: str, mode: str) -> tuple[str, str]:
    """Return what vLLM selects and nothing, or nothing and why it ends the start: for every size and layer alike."""
    chosen = set()
    try:
        if backend == "deep_gemm_mega_moe":
            return mega(scheme, mode), ""
        for size in sizes(scheme):
            for tensor_parallel in TENSOR_PARALLEL[mode]:
                for hashed in (False, True):
                    layer = moe_config(backend, size, tensor_parallel, mode, hashed=hashed)
                    chosen.add(select(scheme, layer).value.lower())
    except (ValueError, NotImplementedError) as error:
        return "", str(error)
    return "|".join(sorted(chosen)), ""


KINDS = {
    "current device": "device",
    "requires SM100": "device",
    "is not supported for": "scheme",
    "not supported for experts": "scheme",
    "only supports fp4": "scheme",
    "quantization scheme": "scheme",
    " activation": "scheme",
    "is disabled for this": "scheme",
    "does not apply the SwiGLU clamp": "clamp",
    "parallel config": "parallel",
    "requires expert parallel": "parallel",
    "requires amd-quark": "package",
}
"""vLLM's words for a reason, and its kind."""


def kind(message: str) -> str:
    """Return the kind of a reason; KeyError for words that are new."""
    for words, name in KINDS.items():
        if words in message:
            return name
    raise KeyError(f"no kind for vLLM's reason: {message}")


def backends() -> list[str]:
    """Return the values of --moe-backend but auto."""
    return sorted(set(get_args(importlib.import_module("vllm.config.kernel").MoEBackend)) - {"auto"})


def of_scheme(scheme: str) -> dict[str, Any]:
    """
    Return what `auto` selects, which backends run in which modes, and why others do not.

    A backend that is in neither has no kernel for the scheme.
    """
    runs: dict[str, Any] = {}
    refused: dict[str, str] = {}
    auto = {mode: attempt(scheme, "auto", mode)[0] for mode in MODES}
    for backend in backends():
        found = {mode: attempt(scheme, backend, mode) for mode in MODES}
        modes = [mode for mode, (chosen, _) in found.items() if chosen]
        if modes:
            runs[backend] = "any" if len(modes) == len(MODES) else modes
        else:
            why = kind(found["ep"][1])
            refused[backend] = _missing(scheme, backend) if why == "device" else why
    named = {backend: why for backend, why in refused.items() if why not in ("scheme", "parallel")}
    same = auto["tp"] if len(set(auto.values())) == 1 else auto
    return {"auto": same, "runs": runs, "refused": named}


def _missing(scheme: str, backend: str) -> str:
    """Return `package` or `variable` where that is all that a backend lacks, else the reason that remains."""
    if scheme == "w4a16" and backend == "flashinfer_trtllm":
        with mock.patch.dict("os.environ", INT4):
            forget(again=True)
            chosen, message = attempt(scheme, backend, "tp")
        forget(again=True)
        return "variable" if chosen else kind(message)
    with installed():
        return "package" if attempt(scheme, backend, "tp")[0] else "device"
