"""
Experts on HUMMING with FP8 activations in place of BF16: what vLLM is told, by the ending of a job's name.

vLLM reads the variable for routed experts that it gives to HUMMING, of every format, and for nothing else (but
`--quantization humming`). `allow_fallback` stays out: with it, weights with groups get BF16 activations, and no line of
the log says so.
"""

VARIABLE = "VLLM_HUMMING_INPUT_QUANT_CONFIG"
ACTIVATIONS = {"fp8": '{"dtype": "float8e4m3", "group_size": 128}', "fp8token": '{"dtype": "float8e4m3"}'}
"""Groups of 128 values, as DeepSeek's own code has; one scale for each token."""


def variables(ending: str | None) -> dict[str, str]:
    """Return the environment of a job with this ending; none for a job without one."""
    return {VARIABLE: ACTIVATIONS[ending]} if ending else {}
