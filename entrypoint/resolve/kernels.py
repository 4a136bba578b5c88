"""
Find kernels that vLLM does not have for this checkpoint on this GPU, and name those that it has. Pure.

What runs is not known here: vLLM's own code said so (`vllm_schema/combinations.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..draft_floors import DSPARK, METHOD, OF_MTP
from ..plan import TENSOR_PARALLEL_SIZE, Setting, draft_tokens, plain
from ..problem import Problem
from ..vllm_schema import combinations
from ..vllm_schema.schema import VERSION
from .select import Selection

MOE, DRAFT_MOE, LINEAR = "moe-backend", "draft-moe-backend", "linear-backend"
ATTENTION, CACHE, BLOCK, INDEXER = "attention-backend", "kv-cache-dtype", "block-size", "indexer-kv-dtype"
TOPK = "sparse-indexer-topk-backend"
RULES = frozenset({MOE, DRAFT_MOE, LINEAR, ATTENTION, CACHE, BLOCK, INDEXER, TOPK})
"""Names of the constraints, for `--skip`."""
UNCHECKED = frozenset(
    {"all2all-backend", "enable-eplb", "eplb-config", "enable-lora", "enable-dbo", "enable-elastic-ep"}
)
"""Flags beside those of RULES that decide which kernels run, and that vLLM was not asked about."""
DRAFT_SETTING = "speculative-config.moe_backend"
INDEXER_SETTING = "attention-config.indexer_kv_dtype"
_SETTINGS = {
    MOE: (MOE, "kernel-config.moe_backend"),
    LINEAR: (LINEAR, "kernel-config.linear_backend"),
    ATTENTION: (ATTENTION, "attention-config.backend"),
    TOPK: (TOPK, "kernel-config.sparse_indexer_topk_backend"),
}
"""Flags that a JSON flag can set too; the first one that is not `auto` counts."""
_INDEXED, _FAMILY = "deepseek-v4", "deepseek-v4-"
"""With DeepSeek-V4.1, and without."""
_TINY = "deepseek-v4-tiny"
_LAST = ("emulation", "batched_triton")
"""Backends that run and are never proposed: slow, or for tests."""
_MOST = 3

Allowed = Callable[[str, str], bool]
"""Whether no other constraint speaks against a flag's value."""


def violations(
    selection: Selection, flags: Mapping[str, Setting], allowed: Allowed
) -> Iterator[tuple[str, str, Problem]]:
    """Yield every flag whose value vLLM has no kernel for, with one that it has."""
    capability, architecture = selection.hardware.get("compute_capability"), selection.model.get("architecture")
    table = combinations.attention(capability) if capability else None
    if not table or not architecture.startswith(_INDEXED) or architecture == _TINY:
        return
    where, v41 = f"{selection.model.name} on {selection.hardware.name}", not architecture.startswith(_FAMILY)
    for name, problem in (
        *_indexer(flags, capability, table),
        *_experts(selection, flags, capability, allowed),
        *_attention(flags, capability, combinations.attention(capability, v41=v41) or table),
        *(() if v41 else _linear(flags, capability)),
    ):
        yield name, where, problem


def effective(name: str, flags: Mapping[str, Setting]) -> tuple[str, str]:
    """Return the backend that vLLM takes, and its setting: the flag, or where that is `auto` the JSON flag."""
    for setting in _SETTINGS[name]:
        value = str(flags[setting].value) if setting in flags else "auto"
        if value.lower() != "auto":
            return _spelled(name, value), setting
    return "auto", name


def _spelled(name: str, value: str) -> str:
    return value.upper() if name == ATTENTION else value.lower().replace("-", "_")


def mode(flags: Mapping[str, Setting]) -> tuple[str, str]:
    """Return the mode of parallelism of a plan, and the one with its experts split; nothing for a single GPU."""
    values = plain(flags)
    replicas = values.get("data-parallel-size", 1)
    replicas = replicas if isinstance(replicas, int) else 1
    split = combinations.mode(replicas, split=True) if replicas * int(values.get(TENSOR_PARALLEL_SIZE, 1)) > 1 else ""
    return split if split and values.get("enable-expert-parallel") else combinations.mode(replicas, split=False), split


def _experts(
    selection: Selection, flags: Mapping[str, Setting], capability: str, allowed: Allowed
) -> Iterator[tuple[str, Problem]]:
    """Yield what speaks against the MoE backends of the target model and of its drafter."""
    method = flags[METHOD].value if METHOD in flags else ""
    drafts = draft_tokens(plain(flags)) > 0 and (method in OF_MTP or method == DSPARK)
    schemes = {MOE: selection.model.get("scheme"), DRAFT_MOE: selection.drafter.scheme if drafts else ""}
    found = {name: combinations.experts(scheme, capability) for name, scheme in schemes.items()}
    (target, setting), own = effective(MOE, flags), str(flags[DRAFT_SETTING].value) if DRAFT_SETTING in flags else ""
    backends = {MOE: target, DRAFT_MOE: _spelled(MOE, own or target)}
    layout, split = mode(flags)
    settings = {MOE: f"--{setting}", DRAFT_MOE: f"--{DRAFT_SETTING}"}
    for name, table in found.items():
        kind = table.refusal(backends[name], layout) if table else ""
        if not table or not kind:
            continue
        if name == DRAFT_MOE and not own and (of_target := found[MOE]) and of_target.refusal(target, layout):
            continue  # the target's backend goes, and the draft's with it
        inherits = found[DRAFT_MOE] if name == MOE and not own else None
        values = [
            value
            for value in ("auto", *(each for each in table.runs if each not in _LAST))
            if not table.refusal(value, layout)
            and not (inherits and inherits.refusal(value, layout))
            and (name == DRAFT_MOE or allowed(MOE, value))
        ]
        seen = _because(backends[name], kind, _stored(schemes[name], name), capability, layout)
        fix = f"{settings[name]} {_listed(values[:_MOST])}"
        if kind == combinations.PARALLEL and split and not table.refusal(backends[name], split):
            fix = f"--enable-expert-parallel, or {settings[name]} auto"
        yield name, Problem(seen, "", f"set {fix}")


def _stored(scheme: str, name: str) -> str:
    kinds = {"fp8-mxfp4": "MXFP4", "modelopt-nvfp4": "NVFP4", "nvfp4": "NVFP4", "w4a16": "INT4", "fp8": "FP8"}
    return f"the {'drafter' if name == DRAFT_MOE else 'model'}'s {kinds.get(scheme, 'BF16')} experts"


def _because(backend: str, kind: str, what: str, capability: str, layout: str) -> str:
    """Return one clause: why vLLM ends a start with this backend."""
    split = "with" if "ep" in layout else "without"
    reasons = {
        combinations.DEVICE: f"its kernels for {what} do not run on SM {capability}",
        combinations.CLAMP: f"it does not apply DeepSeek-V4's SwiGLU clamp to {what}",
        combinations.PACKAGE: f"its kernels for {what} are in a package that the image does not hold",
        combinations.VARIABLE: f"it takes a variable of vLLM for {what}",
        combinations.PARALLEL: f"it does not run {split} expert parallelism for {what}",
        combinations.LAYOUT: f"it stores {what} in a layout that the attention's DeepGEMM kernel cannot read",
    }
    return f"vLLM {VERSION} cannot use {backend}: {reasons.get(kind, f'it has no kernel for {what}')}"


def _indexer(flags: Mapping[str, Setting], capability: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Problem]]:
    """Yield what speaks against the indexer's format; DeepSeek-V4.1 asks the same function of vLLM."""
    indexer = str(flags[INDEXER_SETTING].value) if INDEXER_SETTING in flags else "auto"
    if indexer not in table["indexer_kv_dtype"]:
        seen = f"vLLM {VERSION}: the indexer has no {indexer} cache on SM {capability}"
        yield INDEXER, Problem(seen, "", f"set --{INDEXER_SETTING} fp8")


def _attention(
    flags: Mapping[str, Setting], capability: str, table: Mapping[str, Any]
) -> Iterator[tuple[str, Problem]]:
    """Yield what speaks against the attention backend, the KV cache's format and block, and the top-k kernel."""
    topk, setting = effective(TOPK, flags)
    if topk not in table.get("topk", [topk]):
        seen = f"vLLM {VERSION} has no {topk} kernel for the indexer on SM {capability}"
        yield TOPK, Problem(seen, "", f"set --{setting} auto")
    backend, setting = effective(ATTENTION, flags)
    backends = [name for name in table if name.endswith(("_DSV4", "_DSV41"))]
    if kind := table["refused"].get(backend):
        seen = _because(backend, kind, "DeepSeek-V4's attention", capability, "")
        yield ATTENTION, Problem(seen, "", f"set --{setting} {_listed(backends)}")
        return  # what another backend takes is known once it is chosen
    takes = table.get(backend, table["auto"])
    cache = str(flags[CACHE].value) if CACHE in flags else "auto"
    if cache not in takes[CACHE]:
        others = [name for name in backends if cache in table[name][CACHE]]
        fix = f"set --{CACHE} fp8" + (f", or --{setting} {others[0]}" if others else "")
        what = "its default attention backend" if backend == "auto" else backend
        yield CACHE, Problem(f"vLLM {VERSION}: {what} has no {cache} cache on SM {capability}", "", fix)
    block = flags[BLOCK].value if BLOCK in flags else None
    smallest = takes.get(BLOCK, [1])[0]
    if isinstance(block, int) and block % smallest:
        seen = f"vLLM {VERSION} cannot divide {BLOCK} {block} into the attention's blocks of {smallest}"
        yield BLOCK, Problem(seen, "", f"set --{BLOCK} {smallest}")


def _linear(flags: Mapping[str, Setting], capability: str) -> Iterator[tuple[str, Problem]]:
    """Yield what speaks against the linear backend."""
    (backend, setting), table = effective(LINEAR, flags), combinations.linear(capability)
    if table and (kind := table.get(backend)):
        what = "the FP8 output projection wo_a" if kind == combinations.LAYOUT else "the attention's FP8 weights"
        yield LINEAR, Problem(_because(backend, kind, what, capability, ""), "", f"set --{setting} auto")


def _listed(values: list[Any]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last
