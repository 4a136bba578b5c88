"""The shape of a plan: the tensor parallel size, and the shapes that vLLM 0.32.0 cannot run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..catalog.catalog import ProfileFile
from ..catalog.schema import Hardware, Profile, Root
from ..errors import ConfigError
from ..parallel import DATA_PARALLEL_SIZE, PIPELINE_PARALLEL_SIZE, parallel_of
from ..plan import TENSOR_PARALLEL_SIZE, Setting
from ..problem import Problem
from ..request import Request
from ..vllm_schema import schema

if TYPE_CHECKING:
    from .select import Selection

NODES, CONTEXT, SLICES = "nodes", "context-parallel", "expert-slices"
RULES = frozenset({NODES, CONTEXT, SLICES})
"""Names of the constraints here, for `--skip`."""

EXPERT_ROWS = {
    "deepseek-v4-flash": 2048, "deepseek-v4-flash-vision": 2048, "deepseek-v4-pro": 3072, "deepseek-v4.1-flash": 2304,
}  # fmt: skip
"""`moe_intermediate_size`, which all GPUs that share an expert divide."""
_OTHER_SIZES = (DATA_PARALLEL_SIZE, PIPELINE_PARALLEL_SIZE, "prefill-context-parallel-size")
_CONTEXT_SIZES = ("decode-context-parallel-size", "prefill-context-parallel-size")
_OWN_SERVER = ("data-parallel-hybrid-lb", "data-parallel-external-lb", "data-parallel-rank")
"""Flags with which every node has an API server."""


def tensor_parallel_size(
    root: ProfileFile[Root], hardware: ProfileFile[Hardware], profile: ProfileFile[Profile], request: Request
) -> int:
    """Decide the size, before the model: a default model may depend on it, so no `when` block may set it."""
    links: list[ProfileFile[Any]] = [*root.chain(), *hardware.chain(), *profile.chain()]
    size = 1
    for link in links:
        if TENSOR_PARALLEL_SIZE in link.own.flags:
            size = schema.check_value(
                TENSOR_PARALLEL_SIZE, link.own.flags[TENSOR_PARALLEL_SIZE], f"{link.file} [flags]"
            )
        if any(TENSOR_PARALLEL_SIZE in when.flags for when in link.own.when):
            raise ConfigError(
                f"{link.file}: a [[when]] block cannot set {TENSOR_PARALLEL_SIZE}, which decides what applies;"
                " set it under [flags]."
            )
    if requested := request.flag(TENSOR_PARALLEL_SIZE):
        return int(requested.value)
    return 1 if alone(request) else size


def alone(request: Request) -> dict[str, Setting]:
    """
    Return the tensor parallel size that a request means which sets other sizes and leaves this one out.

    It is vLLM's default, 1, and not a profile's: `--data-parallel-size 8` is eight GPUs.
    """
    if request.flag(TENSOR_PARALLEL_SIZE):
        return {}
    for name in _OTHER_SIZES:
        setting = request.flag(name)
        if setting and isinstance(setting.value, int) and setting.value > 1:
            return {TENSOR_PARALLEL_SIZE: Setting(1, f"vLLM's default, as {setting.origin} sets {name} alone")}
    return {}


def sizes(flags: Mapping[str, Setting]) -> str:
    """Return the sizes of a plan that take GPUs, as a user would write them."""
    names = (TENSOR_PARALLEL_SIZE, *_OTHER_SIZES, "nnodes")
    given = [f"{name} {flags[name].value}" for name in names if name in flags and flags[name].value not in (None, 1)]
    return ", ".join(given) or f"{TENSOR_PARALLEL_SIZE} 1"


def violations(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """Yield what vLLM 0.32.0 cannot run of a shape, for this model or for any."""
    shape, where = parallel_of(flags), f"{selection.profile.name}, {selection.model.name}"
    architecture = str(selection.model.get("architecture") or "")
    given = [name for name in _CONTEXT_SIZES if name in flags and flags[name].value not in (None, 1)]
    if given and architecture.startswith("deepseek-v4"):
        # v1/core/kv_cache_coordinator.py allows full attention only, and models/deepseek_v4 has no code for it
        seen = f"{given[0]}: vLLM 0.32.0 cannot divide DeepSeek-V4's sliding-window cache by context"
        yield CONTEXT, where, Problem(seen, "", f"leave --{given[0]} out, and use --data-parallel-size")
    slices, rows = shape.expert_gpus, EXPERT_ROWS.get(architecture, 0)
    if shape.data > 1 and not shape.expert and rows % slices:
        # model_executor/layers/fused_moe/config.py: data parallel ranks slice each expert, as tensor parallel ones do
        seen = f"{slices} GPUs cannot share experts of {rows} rows evenly"
        yield SLICES, where, Problem(seen, "", "add --enable-expert-parallel, or change --data-parallel-size")
    if shape.gpus % shape.nodes:
        seen = f"{shape.nodes} nodes cannot share {shape.gpus} GPUs evenly"
        fix = "change --nnodes, --tensor-parallel-size, --pipeline-parallel-size or --data-parallel-size"
        yield NODES, where, Problem(seen, f"a multiple of {shape.nodes}", fix)
    yield from _ranks(flags, where)


def _ranks(flags: Mapping[str, Setting], where: str) -> Iterator[tuple[str, str, Problem]]:
    shape = parallel_of(flags)
    if shape.headless and shape.data == 1 and (shape.nodes == 1 or shape.node_rank == 0):
        # entrypoints/cli/serve.py: its engine waits for an API server elsewhere, which only data parallelism has
        seen = "--headless on the first node leaves the server without an API"
        yield NODES, where, Problem(seen, "", "leave --headless out here, or set --nnodes and --node-rank")
    backend = flags.get("distributed-executor-backend")
    if shape.nodes > 1 and backend and backend.value not in (None, "mp", "uni", "external_launcher"):
        seen = f"{shape.nodes} nodes with distributed-executor-backend {backend.value}"
        yield (
            NODES,
            where,
            Problem(seen, "mp, vLLM's default with --nnodes", "leave --distributed-executor-backend out"),
        )
    if shape.nodes == 1 and shape.node_rank and not any(name in flags for name in _OWN_SERVER):
        seen = f"node-rank is {shape.node_rank}, but nnodes is not set, and vLLM would start a server of one node"
        yield NODES, where, Problem(seen, "", "set --nnodes to the number of nodes, or leave --node-rank out")
    if shape.data_local is not None and not 0 <= shape.data_local <= shape.data:
        seen = f"data-parallel-size-local is {shape.data_local}, of {shape.data} data parallel ranks in all"
        yield (
            NODES,
            where,
            Problem(seen, f"0 to {shape.data}", "set --data-parallel-size-local to the ranks of this node"),
        )
    if shape.nodes == 1 or shape.node_rank == 0:
        return
    if shape.node_rank >= shape.nodes:
        needed = f"0 to {shape.nodes - 1}"
        yield NODES, where, Problem(f"node-rank is {shape.node_rank}", needed, "set --node-rank to this node's number")
    elif not shape.headless and not any(name in flags for name in _OWN_SERVER):
        seen = f"node {shape.node_rank} of {shape.nodes} would start an API server of its own"
        yield NODES, where, Problem(seen, "", "add --headless on every node but the first")
    if "master-addr" not in flags:
        seen = f"node {shape.node_rank} of {shape.nodes} would look for the first node at 127.0.0.1, vLLM's default"
        yield NODES, where, Problem(seen, "", "set --master-addr to the first node's address")
