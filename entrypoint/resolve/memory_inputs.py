"""Collect the inputs of the memory estimate: figures of the selected profile files, and the plan's flags. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ..memory.estimate import CACHE_LAYOUTS, FIXED_GIB, GIB, MemoryEstimate
from ..plan import Setting, Value, draft_tokens, plain
from . import cuda_graphs
from .select import Selection

_SYNCHRONOUS = frozenset({"ngram", "medusa", "suffix", "mlp_speculator"})
"""Methods of speculation with which vLLM 0.32.0 schedules one step at a time (config/vllm.py)."""


_OWN_DRAFTER = frozenset({"mtp", "deepseek_mtp", "dspark"})
"""Methods that draft with what the checkpoint ships."""


def estimate(selection: Selection, flags: Mapping[str, Setting]) -> MemoryEstimate | None:
    """Return the memory that a plan takes; None if a figure is missing or the layout is not modelled."""
    size, total = selection.hardware.get("memory_gib"), selection.weights_gib
    utilization = _number(flags, "gpu-memory-utilization")
    if not size or not total or not utilization:
        return None
    if max(_number(flags, "pipeline-parallel-size"), _number(flags, "data-parallel-size")) > 1:
        return None
    cache = _number(flags, "kv-cache-memory-bytes")
    tokens = draft_tokens(plain(flags))
    if not tokens or _value(flags, "speculative-config.method") not in _OWN_DRAFTER:
        total -= selection.drafter.bytes / GIB  # vLLM does not load mtp.* then
    return MemoryEstimate(
        memory_gib=size,
        utilization=utilization,
        checkpoint_gib=total,
        replicated_gib=min(selection.model.get("replicated_gib"), total),
        tensor_parallel_size=selection.tensor_parallel_size,
        layout=CACHE_LAYOUTS.get(selection.model.get("architecture")),
        context=max(0, int(_number(flags, "max-model-len"))),
        batched_tokens=int(_number(flags, "max-num-batched-tokens")),
        requests=selection.profile.get("requests") or int(_number(flags, "max-num-seqs")) or 1,
        draft_tokens=tokens,
        asynchronous=_schedules_asynchronously(flags),
        gathers=not selection.hardware.get("compute_capability").startswith("12."),
        fixed_gib=selection.hardware.get("overhead_gib") or FIXED_GIB,
        workspace_factor=int(_number(flags, "attention-config.sparse_mla_prefill_workspace_factor")),
        kv_cache_memory_gib=cache / GIB if cache else None,
        graphs=_graphs(flags),
        tensor_parallel_sizes=tuple(selection.model.get("tensor_parallel_sizes")),
    )


def _schedules_asynchronously(flags: Mapping[str, Setting]) -> bool:
    """Return whether vLLM schedules a step while another runs: by the flag, else by the method of speculation."""
    scheduling = _value(flags, "async-scheduling")
    if isinstance(scheduling, bool):
        return scheduling
    return _value(flags, "speculative-config.method") not in _SYNCHRONOUS


def _graphs(flags: Mapping[str, Setting]) -> tuple[int, ...]:
    """Return the tokens of the CUDA graphs whose sizes the plan sets; empty where vLLM decides them."""
    sizes, requests = _value(flags, cuda_graphs.SIZES) or [], int(_number(flags, "max-num-seqs"))
    return (*sizes, *cuda_graphs.narrower(sizes, plain(flags), requests)) if sizes else ()


def _value(flags: Mapping[str, Setting], name: str) -> Value:
    return flags[name].value if name in flags else None


def _number(flags: Mapping[str, Setting], name: str) -> float:
    """Return a flag's number; 0 if it is absent, or if vLLM decides it (`auto`)."""
    value = _value(flags, name)
    return value if isinstance(value, (int, float)) else 0
