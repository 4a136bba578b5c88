"""
Let vLLM's processes import at the same time: the patch `import-in-spare-processes` reads a variable.

API server, engine core and workers are spawned one after the other, and each imports vLLM first. With the variable, all
import from the first second on. Only for shapes whose processes are known: one replica on one node, not bound to NUMA
nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..doctor import installed_patches
from ..parallel import parallel_of
from ..plan import Plan, Setting, plain
from ..resolve.wording import NOT_READ

PATCH = "import-in-spare-processes"
VARIABLE = "VLLM_SPARE_PROCESSES"
BREAKABLE = "VLLM_USE_BREAKABLE_CUDAGRAPH"
"""
vLLM sets it while it starts DeepSeek-V4 (vllm/config/vllm.py), and decorators of attention read it when they are
imported. A spare that has imported them without it would be left unused.
"""
_MULTIPROCESSING = "mp"


def variables(plan: Plan) -> dict[str, str]:
    """
    Return how many processes each is to launch in advance: `1` for an engine core that is its own worker, and `1,2` for
    one with two workers; nothing for other shapes. What they import has to know before that it is DeepSeek-V4.
    """
    processes, checkpoint = _processes(plan.flags), plan.choices.get("checkpoint")
    if not processes:
        return {}
    text = str(checkpoint.value) if checkpoint else NOT_READ
    v4 = text.startswith(("deepseek-v4", NOT_READ))  # all but the plain demo
    return {VARIABLE: processes, **({BREAKABLE: "1"} if v4 else {})}


def read_by_vllm() -> bool:
    """Tell whether the installed vLLM has the patch, or may have it; without it, vLLM warns of an unknown variable."""
    return installed_patches.has(PATCH) is not False


def _processes(flags: Mapping[str, Setting]) -> str:
    shape, values = parallel_of(flags), plain(flags)
    if shape.data > 1 or shape.nodes > 1 or shape.headless or values.get("numa-bind"):
        return ""
    if values.get("api-server-count", 1) != 1:
        return ""
    executor = values.get("distributed-executor-backend") or (_MULTIPROCESSING if shape.replica_gpus > 1 else "uni")
    if executor == _MULTIPROCESSING:
        return f"1,{shape.replica_gpus}"
    return "1" if shape.replica_gpus == 1 else ""
