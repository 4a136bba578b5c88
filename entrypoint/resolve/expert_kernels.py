"""
Hand vLLM the hardware's tables of measured kernels for experts, where one may fit what Humming computes here.

The names of the tables decide, with what the plan knows: formats, shape, GPU, and how many INT4 weights share a scale.
vLLM compares the rest when it loads them (the patch `read-measured-configs-of-humming-experts`): another version of
Humming, or a layer that differs, leaves the choice to Humming, and the log says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..catalog import tuned_kernels
from ..parallel import parallel_of
from ..plan import TUNED_KERNELS, Setting
from . import expert_input, shape
from .select import Selection

_WEIGHTS = {"fp8-mxfp4": "float4e2m1", "w4a16": "uint4"}
"""Humming's names for the formats of experts that `qualification/gpu/expert_kernels` measures."""
_LORA = "enable-lora"
"""With the variable, vLLM 0.32.0 also takes other kernels for adapters of experts (lora/layers/fused_moe.py)."""


def settle(selection: Selection, flags: Mapping[str, Setting], env: dict[str, Setting]) -> None:
    """Set the variable where nobody did, and a table may fit."""
    folder = selection.hardware.get("tuned_kernels")
    if not folder or TUNED_KERNELS in env or (_LORA in flags and flags[_LORA].value):
        return
    weights, inputs = _WEIGHTS.get(expert_input.scheme_on_humming(selection, flags)), _input_type(env)
    part, names = _part(selection, flags), selection.hardware.get("nvml_names")
    fits = any(
        (table.weight_type, table.inputs) == (weights, part)
        and inputs in ("", table.input_type)
        and table.device in names  # another kind of GPU may extend a hardware file
        and _same_group(selection, table)
        for table in tuned_kernels.tables(Path(folder))
    )
    if fits:
        why = f"{selection.hardware.file_of('tuned_kernels')} tuned-kernels: tables of measured kernels for experts"
        env[TUNED_KERNELS] = Setting(folder, f"{why}, used where they fit; an empty {TUNED_KERNELS} undoes it")


def _same_group(selection: Selection, table: tuned_kernels.KernelTable) -> bool:
    """Tell whether as many INT4 weights share a scale, as far as checkpoint and table say: 128 in published ones."""
    found = selection.identity.expert_group_size if selection.identity else 0
    return not found or table.group_size() in (0, found)


def _input_type(env: Mapping[str, Setting]) -> str:
    """Return the type of the experts' inputs by Humming's name; nothing where a file says it."""
    if expert_input.VARIABLE not in env:
        return "bfloat16"
    try:
        found = json.loads(str(env[expert_input.VARIABLE].value))
    except (ValueError, RecursionError):
        return ""
    return str(found.get("a_dtype") or found.get("dtype") or "bfloat16") if isinstance(found, dict) else ""


def _part(selection: Selection, flags: Mapping[str, Setting]) -> int:
    """
    Return the rows of each expert that one GPU holds, which `w2` has as inputs; 0 where that is unknown.

    It is 0 with whole experts as well, for which Humming takes kernels that no table is for.
    """
    sizes = parallel_of(flags)
    found = selection.identity.expert_rows if selection.identity else 0
    rows: int = found or shape.EXPERT_ROWS.get(selection.model.get("architecture"), 0)
    whole = sizes.expert and sizes.expert_gpus > 1
    return 0 if whole or rows % sizes.expert_gpus else rows // sizes.expert_gpus
