"""The shape of one server: how vLLM 0.32.0 spreads it over GPUs and nodes (vllm/config/parallel.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .plan import TENSOR_PARALLEL_SIZE, Setting, Value, plain

DATA_PARALLEL_SIZE = "data-parallel-size"
PIPELINE_PARALLEL_SIZE = "pipeline-parallel-size"


@dataclass(frozen=True)
class Parallel:
    """
    Sizes of the groups, by vLLM's flags; 1 is none.

    A replica is `tensor` x `pipeline` x `prefill_context` GPUs that hold the model once; with `data` > 1 several
    replicas share their experts. `decode_context` divides the KV cache among GPUs that a replica has anyway.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    prefill_context: int = 1
    decode_context: int = 1
    expert: bool = False
    """Whether whole experts are distributed, and not slices of each."""
    nodes: int = 1
    node_rank: int = 0
    data_local: int | None = None
    """Data parallel replicas of this node, 0 for an API server alone; None if they follow from the nodes."""
    headless: bool = False
    """Whether this node has no API server: another one has."""

    @property
    def name(self) -> str:
        """Its sizes in a file name: `tp2`, `tp1-dp4-ep`, `tp2-pp2-n2`."""
        others = {"dp": self.data, "pp": self.pipeline, "n": self.nodes}
        sizes = [f"{short}{size}" for short, size in others.items() if size > 1]
        return "-".join([f"tp{self.tensor}", *sizes, *(["ep"] if self.expert and self.data > 1 else [])])

    @property
    def replica_gpus(self) -> int:
        """GPUs that hold the model once."""
        return self.tensor * self.pipeline * self.prefill_context

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.replica_gpus * self.data

    @property
    def node_gpus(self) -> int:
        """GPUs of this node."""
        if self.data_local is not None:
            return self.group_gpus * self.data_local
        return -(-self.gpus // self.nodes)

    @property
    def group_gpus(self) -> int:
        """GPUs of one replica on this node."""
        return -(-self.replica_gpus // self.nodes_of_replica)

    @property
    def node_replicas(self) -> int:
        """Data parallel replicas on this node; one that spans nodes counts on each. An API server alone has none."""
        if self.data_local is not None:
            return self.data_local
        return max(1, self.node_gpus // (self.group_gpus or 1))

    @property
    def nodes_of_replica(self) -> int:
        """Nodes that one replica spans."""
        if self.data_local is None:
            return max(1, self.nodes // self.data)
        return max(1, self.nodes * max(1, self.data_local) // self.data)

    @property
    def expert_gpus(self) -> int:
        """GPUs that share the routed experts of one layer, with expert parallelism or without it."""
        return self.tensor * self.data * self.prefill_context


def parallel_of(flags: Mapping[str, Setting]) -> Parallel:
    """Return the shape that a plan's flags describe; a value that is no number counts as vLLM's default."""
    return parallel(plain(flags))


def parallel(values: Mapping[str, Value]) -> Parallel:
    """Return the shape that the values of flags describe; a rank of its own is the only one of its server."""

    def number(name: str, otherwise: int = 1) -> int:
        value = values.get(name, otherwise)
        return value if isinstance(value, int) and not isinstance(value, bool) else otherwise

    def switch(name: str) -> bool:
        return values.get(name) is True

    local = "data-parallel-size-local"
    one = values.get("data-parallel-rank") is not None or switch("data-parallel-external-lb")
    own = 1 if one else number(local) if local in values else None
    return Parallel(
        tensor=number(TENSOR_PARALLEL_SIZE),
        pipeline=number(PIPELINE_PARALLEL_SIZE),
        data=number(DATA_PARALLEL_SIZE),
        prefill_context=number("prefill-context-parallel-size"),
        decode_context=number("decode-context-parallel-size"),
        expert=switch("enable-expert-parallel"),
        nodes=max(1, number("nnodes")),
        node_rank=number("node-rank", 0),
        data_local=own,
        headless=switch("headless"),
    )
