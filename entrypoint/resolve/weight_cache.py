"""Find a --load-format ipc_cache that vLLM refuses, some of them only when all weights are loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..plan import Setting
from ..problem import Problem
from ..vllm_schema import combinations
from ..vllm_schema.schema import VERSION
from . import kernels
from .select import Selection

RULE = "weight-cache"
"""The name of the constraint, for `--skip`."""
_FORMAT = "load-format"
_FIX = f"leave --{_FORMAT} out; `dsv4 weights prefetch` keeps the files in memory for the next start"
_FP4 = frozenset({"fp8-mxfp4", "modelopt-nvfp4"})


def violations(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """
    Yield a model whose weights the daemon of `vllm preload` cannot hand over.

    A method of vLLM has to take processed weights (`supports_pre_processed_weights`): those of compressed-tensors do
    not, and FP4 experts do with FlashInfer's TRTLLM kernels alone, which are vLLM's choice on SM 10.x.
    """
    if str(flags[_FORMAT].value if _FORMAT in flags else "") != "ipc_cache":
        return
    scheme, capability = selection.model.get("scheme") or "", selection.hardware.get("compute_capability") or ""
    backend, _ = kernels.effective(kernels.MOE, flags)
    seen = ""
    if (combinations.quantization(scheme) or {}).get("auto") == "compressed-tensors":
        seen = f"vLLM {VERSION} cannot map weights of compressed-tensors from the daemon of `vllm preload`"
    elif scheme in _FP4 and capability and not capability.startswith("10."):
        seen = f"vLLM {VERSION} maps FP4 experts of `vllm preload` on SM 10.x only, not on SM {capability}"
    elif scheme in _FP4 and backend not in ("auto", "flashinfer_trtllm"):
        seen = f"vLLM {VERSION} cannot map the experts of --moe-backend {backend} from the daemon of `vllm preload`"
    if seen:
        yield RULE, f"model {selection.model.name}", Problem(seen, "", _FIX)
