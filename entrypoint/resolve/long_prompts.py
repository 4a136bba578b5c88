"""
How much of a step one long prompt may take, so that other requests get their turn.

vLLM 0.32.0 gives a running prompt the whole token budget of a step (`v1/core/sched/scheduler.py`), so a request that
comes meanwhile waits for its first token until the prompt is read: 5.67 s beside a prompt of 131,000 tokens on an H200,
0.78 s with the flag (docs/results/speed.md). With `long-prefill-token-threshold` a prompt takes at most that of a step,
unless no other request is there. Half of a step leaves the other half, which two long prompts at once still fill.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Setting

THRESHOLD = "long-prefill-token-threshold"
_STEP, _CONTEXT, _CHUNKS = "max-num-batched-tokens", "max-model-len", "enable-chunked-prefill"


def named(flags: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the flag for half of a step, where a prompt may be longer than a step and no layer sets the flag."""
    step, context, chunks = (flags[name].value if name in flags else None for name in (_STEP, _CONTEXT, _CHUNKS))
    if THRESHOLD in flags or chunks is False or not isinstance(step, int) or not isinstance(context, int):
        return {}
    if not 1 < step < context:
        return {}
    return {THRESHOLD: Setting(step // 2, f"half of {_STEP}, so that a long prompt leaves room for other requests")}
