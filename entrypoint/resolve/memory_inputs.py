"""Collect the inputs of the memory estimate: figures of the selected profile files, and the plan's flags. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from ..draft_floors import DSPARK
from ..kv_offloading import offloading_of
from ..memory import overhead
from ..memory.cache_layout import BF16_ROWS, CACHE_LAYOUTS, FP8_ROWS, MXFP4_KEY, CacheLayout
from ..memory.estimate import GIB, MemoryEstimate
from ..parallel import Parallel, parallel_of
from ..plan import Setting, Value, draft_tokens, plain
from . import cuda_graphs
from .select import Selection

_SYNCHRONOUS = frozenset({"ngram", "medusa", "suffix", "mlp_speculator"})
"""Methods of speculation with which vLLM 0.32.0 schedules one step at a time (config/vllm.py)."""
_OWN_DRAFTER = frozenset({"mtp", "deepseek_mtp", "dspark"})
"""Methods that draft with what the checkpoint ships."""
_EXPERT_BITS = {"fp8-mxfp4": 4.25, "w4a16": 4.125, "nvfp4": 4.5, "modelopt-nvfp4": 4.5, "fp8": 8.0, "unquantized": 16.0}
"""Bits of a weight of a routed expert with its scales, by scheme."""
_EXPERTS = {"deepseek-v4-flash": (43, 256 * 3 * 4096 * 2048), "deepseek-v4-pro": (61, 384 * 3 * 7168 * 3072)}
"""Layers, and weights of the routed experts of each."""
_FLASHINFER, _SEQUENCES = "FLASHINFER_MLA_SPARSE_DSV4", 256
_NOT_COUNTED = {
    "enable-lora": "LoRA adapters",
    "kv-transfer-config": "buffers of a KV connector",
    "kv-offloading-size": "buffers of KV offloading",
    "enable-eplb": "redundant experts of EPLB",
    "cpu-offload-gb": "weights that --cpu-offload-gb keeps in host memory",
    "disable-hybrid-kv-cache-manager": "sliding windows kept in full, without the hybrid manager",
}
"""Flags whose memory this count leaves out, beside groups of the same name."""


def estimate(selection: Selection, flags: Mapping[str, Setting]) -> MemoryEstimate | None:
    """Return the memory that a plan takes; None where `uncounted` has a reason."""
    if uncounted(selection, flags):
        return None
    total, shape = selection.weights_gib or 0.0, parallel_of(flags)
    cache, tokens = _number(flags, "kv-cache-memory-bytes"), draft_tokens(plain(flags))
    drafts = bool(tokens) and _value(flags, "speculative-config.method") in _OWN_DRAFTER
    if not drafts:
        total -= selection.drafter.bytes / GIB  # vLLM does not load mtp.* then
    sequences = int(_number(flags, "max-num-seqs")) or _SEQUENCES
    capability = str(selection.hardware.get("compute_capability"))
    flashinfer = capability.startswith("12.") or _FLASHINFER in _backends(flags)
    return MemoryEstimate(
        memory_gib=selection.hardware.get("memory_gib"),
        utilization=_number(flags, "gpu-memory-utilization"),
        checkpoint_gib=total,
        replicated_gib=min(selection.model.get("replicated_gib"), total),
        tensor_parallel_size=selection.tensor_parallel_size,
        layout=_layout(selection, flags, capability, drafts=drafts),
        context=max(0, int(_number(flags, "max-model-len"))),
        batched_tokens=int(_number(flags, "max-num-batched-tokens")),
        requests=_promised(selection, flags, shape.data),
        sequences=sequences,
        draft_tokens=tokens,
        draft_logits=drafts and _value(flags, "speculative-config.draft_sample_method") == "probabilistic",
        asynchronous=_schedules_asynchronously(flags),
        gathers=not flashinfer,
        overhead=_overhead(selection, capability),
        workspace_factor=int(_number(flags, "attention-config.sparse_mla_prefill_workspace_factor")),
        kv_cache_memory_gib=cache / GIB if cache else None,
        graphs=graphs(selection, plain(flags), sequences),
        tensor_parallel_sizes=tuple(selection.model.get("tensor_parallel_sizes")),
        experts_gib=_experts_gib(selection, drafts=drafts),
        drafter_gib=selection.drafter.bytes / GIB if drafts else 0.0,
        pipeline_parallel_size=shape.pipeline,
        data_parallel_size=shape.data,
        expert_parallel=shape.expert,
        offloading_gib=offloading_of(flags).gib,
        offloading_copies=_copies(flags, shape),
        node_replicas=shape.node_replicas,
        not_counted=tuple(_not_counted(selection, flags)),
    )


def graphs(selection: Selection, values: Mapping[str, Value], sequences: int) -> tuple[int, ...]:
    """Return the sizes of the CUDA graphs that vLLM captures on this hardware."""
    sm10 = str(selection.hardware.get("compute_capability")).startswith("10.")
    return cuda_graphs.captured(values, sequences, sm10=sm10)


def uncounted(selection: Selection, flags: Mapping[str, Setting]) -> str:
    """Return why the memory of a plan cannot be counted, and what to set; empty if it can."""
    model, hardware, shape = selection.model, selection.hardware, parallel_of(flags)
    v41 = str(model.get("architecture")).startswith("deepseek-v4.1")
    reasons = {
        "neither the KV cache of DeepSeek-V4.1 nor its Engram tables in host memory is modelled": v41,
        "the GPU's memory is not known: name the hardware (--hardware), or set memory-gib in its file": (
            not hardware.get("memory_gib")
        ),
        f"nothing says how large {model.name} is: set weights-gib in its profile file, or name a folder of it": (
            not selection.weights_gib
        ),
        "vLLM chooses the share of memory: set --gpu-memory-utilization": not _number(flags, "gpu-memory-utilization"),
        "vLLM 0.32.0 cannot divide sliding windows by context": max(shape.decode_context, shape.prefill_context) > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def unsized(selection: Selection, flags: Mapping[str, Setting]) -> str:
    """Return why requests cannot be counted, though the weights may be; empty if they can."""
    if reason := uncounted(selection, flags):
        return reason
    architecture = selection.model.get("architecture")
    if architecture not in CACHE_LAYOUTS:
        return f"the KV cache of {architecture} is not modelled"
    missing = [name for name in ("max-model-len", "max-num-batched-tokens") if _number(flags, name) <= 0]
    return f"vLLM chooses {missing[0]}: set --{missing[0]}" if missing else ""


def _promised(selection: Selection, flags: Mapping[str, Setting], replicas: int) -> int:
    """
    Return the requests that a plan promises of each data parallel replica.

    They are a share of the profile's, or `max-num-seqs`, which vLLM takes for each replica, where that was changed.
    """
    sequences, promised = int(_number(flags, "max-num-seqs")), selection.profile.get("requests")
    changed = sequences and sequences != selection.profile.flags().get("max-num-seqs", sequences)
    return sequences or 1 if changed or not promised else -(-promised // replicas)


def _layout(selection: Selection, flags: Mapping[str, Setting], capability: str, *, drafts: bool) -> CacheLayout | None:
    """Return the cache's layout with the plan's formats; FlashInfer keeps plain rows on SM 10.x."""
    layout = CACHE_LAYOUTS.get(selection.model.get("architecture"))
    if layout is None:
        return None
    formats: dict[str, int] = {}
    if capability.startswith("10.") and _FLASHINFER in _backends(flags):
        narrow = str(_value(flags, "kv-cache-dtype") or "auto").startswith("fp8")
        formats["entry"] = FP8_ROWS if narrow else BF16_ROWS
    if _value(flags, "attention-config.indexer_kv_dtype") == "mxfp4":
        formats["key"] = MXFP4_KEY
    layers = (selection.drafter.layers or (3 if selection.drafter.kind == DSPARK else 1)) if drafts else 0
    return dataclasses.replace(layout, drafter=layers, **formats)


def _copies(flags: Mapping[str, Setting], shape: Parallel) -> int:
    """
    Return how many ranks of a replica keep copies of their own in host memory.

    Tensor parallel ranks of one host have the same cache and write it once; all others keep what each has
    (`replicated_layout`, distributed/kv_transfer/kv_connector/v1/offloading/config.py, 0.32.0).
    """
    by_ray = shape.data > 1 and _value(flags, "data-parallel-backend") == "ray"
    backend = _value(flags, "distributed-executor-backend") or ("ray" if by_ray else "mp")
    one_host = shape.nodes_of_replica == 1 and backend == "mp"
    return 1 if one_host and shape.replica_gpus == shape.tensor else shape.replica_gpus


def _overhead(selection: Selection, capability: str) -> overhead.Overhead:
    """Return the overhead's numbers for a hardware: the measured ones, or those of H200 with a wide margin."""
    hardware = selection.hardware
    if "h200" in {link.name for link in hardware.chain()}:
        found = overhead.H200
    else:
        found = overhead.SM12 if capability == "12.0" else overhead.UNMEASURED
    own = hardware.get("overhead_gib")
    return dataclasses.replace(found, fixed=own) if own else found


def _experts_gib(selection: Selection, *, drafts: bool) -> float:
    """Return the size of all routed experts; 0 where the scheme is not known: every replica then holds all."""
    architecture = str(selection.model.get("architecture")).removesuffix("-vision")
    layers, weights = _EXPERTS.get(architecture, (0, 0))
    drafter = selection.drafter
    bits = layers * _EXPERT_BITS.get(selection.model.get("scheme"), 0.0)
    if drafts:
        bits += (drafter.layers or 1) * _EXPERT_BITS.get(drafter.scheme, 0.0)
    return weights * bits / 8 / GIB


def _not_counted(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[str]:
    """Yield what the plan asks for and the count leaves out."""
    groups = {flag.partition(".")[0] for flag in flags if "." in flag}
    offloading = offloading_of(flags)
    counted = {"kv-offloading-size", "kv-transfer-config"} if offloading.gib else set()
    for name, what in _NOT_COUNTED.items():
        if name not in counted and (_value(flags, name) or name in groups):
            yield what
    if offloading.extra.get("blocks_per_chunk") not in (None, 1):
        yield "chunks of several blocks (blocks_per_chunk), of which host memory keeps fewer conversations"
    if str(selection.model.get("architecture")).endswith("-vision") and not _value(flags, "language-model-only"):
        tower = "" if selection.identity and selection.identity.bytes else "the vision tower, and "
        yield f"{tower}what images take (--language-model-only leaves both out)"
    method = _value(flags, "speculative-config.method")
    if _value(flags, "speculative-config.model") or (method and method not in _OWN_DRAFTER | _SYNCHRONOUS):
        yield "a drafter that the checkpoint does not ship"


def _backends(flags: Mapping[str, Setting]) -> set[str]:
    return {str(_value(flags, name) or "").upper() for name in ("attention-backend", "attention-config.backend")}


def _schedules_asynchronously(flags: Mapping[str, Setting]) -> bool:
    """Return whether vLLM schedules a step while another runs: by the flag, else by the method of speculation."""
    scheduling = _value(flags, "async-scheduling")
    if isinstance(scheduling, bool):
        return scheduling
    return _value(flags, "speculative-config.method") not in _SYNCHRONOUS


def _value(flags: Mapping[str, Setting], name: str) -> Value:
    return flags[name].value if name in flags else None


def _number(flags: Mapping[str, Setting], name: str) -> float:
    """Return a flag's number; 0 if it is absent, or if vLLM decides it (`auto`)."""
    value = _value(flags, name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
