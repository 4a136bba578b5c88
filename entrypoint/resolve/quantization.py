"""Find a --quantization that contradicts the checkpoint: vLLM ends the start. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..plan import Setting, draft_tokens, plain
from ..problem import Problem
from ..vllm_schema import combinations
from ..vllm_schema.schema import VERSION
from .select import Selection

RULE = "quantization"
"""The name of the constraint, for `--skip`."""
_OF_DRAFTER = "speculative-config.quantization"


def violations(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """
    Yield a method that is neither the checkpoint's nor one that vLLM replaces by it.

    DeepSeek's own files are taken as `deepseek_v4_fp8` whatever the flag says, so none is wrong for them.
    """
    scheme = selection.model.get("scheme") or ""
    table = combinations.quantization(scheme)
    if not table or table["accepts"] == "any":
        return
    for name in (RULE, _OF_DRAFTER) if draft_tokens(plain(flags)) else (RULE,):
        value = flags[name].value if name in flags else None
        if value is None or str(value).lower() in table["accepts"]:
            continue
        seen = f"vLLM {VERSION} cannot load it with --{name} {value}: its files say {table['auto']}"
        yield RULE, f"model {selection.model.name}", Problem(seen, "", f"leave --{name} out")
