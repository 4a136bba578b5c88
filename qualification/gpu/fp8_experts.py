"""
What the inputs of experts on HUMMING are: as in the plan, BF16 or FP8, by the ending of a job's name.

vLLM reads the variable for routed experts that it gives to HUMMING, of every format, and for nothing else (but
`--quantization humming`). A plan sets it for DeepSeek's own layouts on SM 9.0.
"""

from dsv4_serve.entrypoint.resolve.expert_input import BF16, GROUPS, VARIABLE

ACTIVATIONS = {"bf16": BF16, "fp8": GROUPS, "fp8token": '{"dtype": "float8e4m3"}'}
"""vLLM's own; groups of 128 values, as DeepSeek's own code has; one scale for each token."""
OWN_LAYOUTS = ("native", "flash-0731")
"""Those with MXFP4 experts, for which a plan sets groups."""


def variables(ending: str | None) -> dict[str, str]:
    """Return the environment of a job with this ending; none for a job without one, which is served by a plan."""
    return {VARIABLE: ACTIVATIONS[ending]} if ending else {}


def as_planned(layout: str, ending: str | None) -> dict[str, str]:
    """Return the environment of a job without a plan: for a job without an ending, what a plan on SM 9.0 would set."""
    return variables(ending or ("fp8" if layout in OWN_LAYOUTS else None))
