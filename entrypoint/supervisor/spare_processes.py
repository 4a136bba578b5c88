"""
Let vLLM's processes import at the same time: the patch `import-in-spare-processes` reads a variable.

API server, engine core and workers are spawned one after the other, and each imports vLLM first. With the variable, all
import from the first second on. Only for shapes whose processes are known: one replica on one node, not bound to NUMA
nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..parallel import parallel_of
from ..plan import Setting, plain

VARIABLE = "VLLM_SPARE_PROCESSES"
_MULTIPROCESSING = "mp"


def variables(flags: Mapping[str, Setting]) -> dict[str, str]:
    """
    Return how many processes each is to launch in advance: `1` for an engine core that is its own worker, and `1,2` for
    one with two workers; nothing for other shapes.
    """
    shape, values = parallel_of(flags), plain(flags)
    if shape.data > 1 or shape.nodes > 1 or shape.headless or values.get("numa-bind"):
        return {}
    if values.get("api-server-count", 1) != 1:
        return {}
    executor = values.get("distributed-executor-backend") or (_MULTIPROCESSING if shape.replica_gpus > 1 else "uni")
    if executor == _MULTIPROCESSING:
        return {VARIABLE: f"1,{shape.replica_gpus}"}
    return {VARIABLE: "1"} if shape.replica_gpus == 1 else {}
