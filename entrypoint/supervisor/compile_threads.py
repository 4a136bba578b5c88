"""
Give the compilers of a first start all cores: vLLM compiles Triton kernels ahead of use in 4 threads, whatever it has.

Other compilers do by themselves: ninja and Inductor take all cores, and Humming compiles the kernels of a layer side by
side. DeepGEMM and TileLang compile one kernel after the other in each rank (vLLM 0.32.0), and no flag changes that.
"""

from __future__ import annotations

from collections.abc import Mapping

VARIABLE = "VLLM_TRITON_JIT_WARMUP_NUM_THREADS"
_FEWEST, _MOST = 4, 16
"""vLLM's own number, and a bound: each thread holds a compiler's memory."""


def variables(environ: Mapping[str, str], cores: int, ranks: int) -> dict[str, str]:
    """Return the number of threads for each of a node's ranks; nothing where it is set, or where it is vLLM's own."""
    threads = min(_MOST, cores // max(1, ranks))
    return {} if VARIABLE in environ or threads <= _FEWEST else {VARIABLE: str(threads)}
