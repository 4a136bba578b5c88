"""Find a --load-format ipc_cache that vLLM refuses once the model is built, or that serves empty experts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..plan import Setting
from ..problem import Problem
from ..vllm_schema import combinations
from ..vllm_schema.schema import VERSION
from .select import Selection

RULE = "weight-cache"
"""The name of the constraint, for `--skip`."""
_FORMAT, _MEGA = "load-format", "deep_gemm_mega_moe"
_FIX = f"leave --{_FORMAT} out; `dsv4 weights prefetch` keeps the files in memory for the next start"


def violations(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """
    Yield a model whose weights the daemon of `vllm preload` cannot hand over.

    A method of vLLM has to declare that it takes processed weights (`supports_pre_processed_weights`), and those of
    compressed-tensors do not. Mega MoE keeps its weights outside of the parameters, which are all that is handed over.
    """
    if str(flags[_FORMAT].value if _FORMAT in flags else "") != "ipc_cache":
        return
    table = combinations.quantization(selection.model.get("scheme") or "")
    seen = ""
    if table and table.get("auto") == "compressed-tensors":
        seen = f"vLLM {VERSION} cannot map weights of compressed-tensors from the daemon of `vllm preload`"
    elif str(flags["moe-backend"].value if "moe-backend" in flags else "") == _MEGA:
        seen = (
            f"vLLM {VERSION} does not hand over the experts of --moe-backend {_MEGA} from the daemon of `vllm preload`"
        )
    if seen:
        yield RULE, f"model {selection.model.name}", Problem(seen, "", _FIX)
