"""
Give DeepSeek's own MXFP4 experts FP8 inputs where Humming computes them and the hardware's file asks for it. Pure.

Humming takes BF16 by itself. DeepSeek's code rounds the inputs of its experts to FP8, in groups of 128 values, and that
is faster where it was measured, but for one request (docs/results/speed.md). vLLM 0.32.0 reads one variable for it, by
which every routed expert on Humming is served, whatever its format: so nothing is set where one of another format is.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..parallel import parallel_of
from ..plan import Setting
from ..vllm_schema import combinations
from . import kernels, shape
from .select import Selection

VARIABLE = "VLLM_HUMMING_INPUT_QUANT_CONFIG"
GROUPS = '{"dtype": "float8e4m3", "group_size": 128}'
"""A scale for 128 values. No `allow_fallback`: with it, weights with groups get BF16 inputs, which no log shows."""
BF16 = '{"dtype": "bfloat16"}'
"""What a user sets for BF16 inputs, as vLLM has them by itself; an empty variable is no JSON and ends its start."""
CHOICE = "expert inputs"
"""The row of `explain` that says why the plan leaves them as BF16."""
_SCHEME, _GROUP, _HUMMING = "fp8-mxfp4", 128, "humming"


def settle(selection: Selection, flags: Mapping[str, Setting], env: dict[str, Setting]) -> dict[str, Setting]:
    """Set the variable where nobody did. Return what `explain` shows where the experts' shape forbids it."""
    hardware = selection.hardware
    if VARIABLE in env or hardware.get("mxfp4_expert_inputs") != "fp8" or not _on_humming(selection, flags):
        return {}
    why = f"{hardware.file_of('mxfp4_expert_inputs')} mxfp4-expert-inputs"
    if reason := _unfit(selection, flags):
        return {CHOICE: Setting("BF16", f"{why}: {reason}")}
    env[VARIABLE] = Setting(GROUPS, f"{why}: FP8 by 128 values, as in DeepSeek's code; {BF16} undoes it")
    return {}


def scheme_on_humming(selection: Selection, flags: Mapping[str, Setting]) -> str:
    """Return the format of the target model's experts where Humming computes them, else nothing."""
    scheme: str = selection.model.get("scheme")
    found = selection.identity.scheme if selection.identity else ""
    table = combinations.experts(scheme, selection.hardware.get("compute_capability"))
    if found not in ("", scheme) or table is None:
        return ""
    (backend, _), (layout, _) = kernels.effective(kernels.MOE, flags), kernels.mode(flags)
    return scheme if table.chosen(backend, layout) == _HUMMING else ""


def _on_humming(selection: Selection, flags: Mapping[str, Setting]) -> bool:
    """Tell whether Humming computes the target model's MXFP4 experts, and no experts of another format."""
    alike = selection.drafter.scheme in ("", _SCHEME, "unquantized")
    return alike and scheme_on_humming(selection, flags) == _SCHEME


def _unfit(selection: Selection, flags: Mapping[str, Setting]) -> str:
    """
    Return why vLLM would end the start, or do what nobody has measured; nothing where the inputs can be FP8.

    Humming quantizes the input of `w2`, of which each GPU has a part, in whole groups (humming-kernels 0.1.17:
    tune/process_input.py and process_input.cuh assert it). With data parallelism vLLM sends quantized inputs to the
    other replicas (`_prequantizes_dispatch_activation`), and with expert parallelism Humming takes other kernels.
    """
    sizes = parallel_of(flags)
    if sizes.data > 1:
        return "FP8 inputs with data parallelism are unmeasured"
    if sizes.expert and sizes.expert_gpus > 1:
        return "FP8 inputs with expert parallelism are unmeasured"
    found = selection.identity.expert_rows if selection.identity else 0
    slices = sizes.expert_gpus
    for rows in filter(None, (shape.EXPERT_ROWS.get(selection.model.get("architecture")), found)):
        if rows % (slices * _GROUP):
            gpus = f"{slices} GPUs" if slices > 1 else "one GPU"
            return f"{gpus} cannot divide {rows} rows of an expert into groups of {_GROUP}"
    return ""
