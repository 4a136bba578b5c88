"""
What the inputs of experts on Humming are: as in the plan, BF16 or FP8, by the ending of a job's name.

vLLM reads the variable for routed experts that it gives to Humming, of every format, and for nothing else (but
`--quantization humming`). A plan sets groups for DeepSeek's own layouts on H200, so a job of run_layouts that is served by
one has them without an ending; an engine without a plan, as in run_numerics, has vLLM's BF16.
"""

from dsv4_serve.entrypoint.resolve.expert_input import BF16, GROUPS, VARIABLE

ACTIVATIONS = {"bf16": BF16, "fp8": GROUPS, "fp8token": '{"dtype": "float8e4m3"}'}
"""vLLM's own; groups of 128 values, as DeepSeek's own code has; one scale for each token."""


def variables(ending: str | None) -> dict[str, str]:
    """Return the environment of a job with this ending; none for a job without one."""
    return {VARIABLE: ACTIVATIONS[ending]} if ending else {}
