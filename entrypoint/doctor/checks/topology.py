"""How a replica's GPUs are connected, against a plan's NCCL settings. Each check takes (Topology, Asked)."""

from __future__ import annotations

from collections.abc import Callable

from ...machine.requirements import Asked
from ...machine.topology import Topology, closest, distance, obstacle_to_peers
from ...problem import Problem, Wild, check

_RFC = "https://github.com/vllm-project/vllm/issues/51513"
_GPUDIRECT = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#gpu-direct"


@check(
    Wild("No available shared memory broadcast block found in 60 seconds, for ever, after CUDA graphs", _RFC, (1, 2, 4))
)
def custom_all_reduce(topology: Topology, asked: Asked) -> Problem | None:
    """At exactly two GPUs without NVLink vLLM keeps its own all-reduce on, whatever NCCL is told, and it hangs."""
    group = served(topology, asked)
    if len(group) != 2 or not asked.custom_all_reduce or topology.nvlinked(group):
        return None
    return Problem(
        f"GPUs {group[0]} and {group[1]} have no NVLink, and vLLM's own all-reduce is on",
        "NCCL's all-reduce",
        "add --disable-custom-all-reduce",
    )


@check(Wild("vLLM hangs; the last line is `vLLM is using nccl==`; both GPUs at 100 %", _RFC, (3,)))
def peer_access(topology: Topology, asked: Asked) -> Problem | None:
    """NCCL uses peer access over PCIe only where nothing stands in its way."""
    group = served(topology, asked)
    if len(group) < 2 or not asked.peer_access or topology.nvlinked(group):
        return None
    obstacle = obstacle_to_peers(topology, group)
    if not obstacle:
        return None
    return Problem(
        f"NCCL may use peer access over PCIe, and {obstacle}",
        "the NCCL set p2p-off, or a host with IOMMU and ACS off",
        "--nccl p2p-off (DSV4_NCCL)",
    )


@check(Wild("12 instead of 34 tokens/s: traffic crosses the CPU sockets", "https://github.com/NVIDIA/nccl/issues/2079"))
def closest_gpus(topology: Topology, asked: Asked) -> Problem | None:
    """The replica's GPUs are the closest ones of those that are visible."""
    group = served(topology, asked)
    best = closest(topology, asked.group)
    if len(group) < 2 or len(group) < asked.group or distance(topology, best) >= distance(topology, group):
        return None
    worst = max(topology.within(group), key=lambda pair: distance(topology, (pair.a, pair.b)))
    return Problem(
        f"GPUs {_list(group)} are {worst.ancestor} apart, and {_list(best)} are closer",
        "close GPUs in one replica",
        f"CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={','.join(map(str, best))}",
        fatal=False,
    )


@check(Wild("slow all-reduce on a board with NVLink", _GPUDIRECT))
def nvlink_up(topology: Topology, asked: Asked) -> Problem | None:
    """Hardware with NVLink has it between every pair of the replica."""
    group = served(topology, asked)
    apart = [pair for pair in topology.within(group) if not pair.nvlink]
    if asked.interconnect != "nvlink" or not apart:
        return None
    return Problem(
        f"no NVLink between GPUs {apart[0].a} and {apart[0].b}",
        f"NVLink, as {asked.hardware} has",
        "choose GPUs that NVLink connects (CUDA_VISIBLE_DEVICES), or --nccl p2p-off with --disable-custom-all-reduce",
        fatal=False,
    )


@check(Wild("slow all-reduce on NVLink with settings meant for PCIe", _GPUDIRECT))
def nvlink_unused(topology: Topology, asked: Asked) -> Problem | None:
    """NCCL is not kept from NVLink: NCCL_P2P_DISABLE forbids it too."""
    group = served(topology, asked)
    if asked.peer_access or not topology.nvlinked(group):
        return None
    return Problem(
        f"NVLink connects GPUs {_list(group)}, and NCCL_P2P_DISABLE forbids it",
        "no NCCL settings on NVLink",
        "--nccl none (DSV4_NCCL)",
        fatal=False,
    )


def served(topology: Topology, asked: Asked) -> tuple[int, ...]:
    """Return the GPUs of the first replica: the first of those that are visible."""
    return topology.gpus[: asked.group]


def _list(group: tuple[int, ...]) -> str:
    return ", ".join(map(str, group))


CHECKS: tuple[Callable[[Topology, Asked], Problem | None], ...] = (
    custom_all_reduce,
    peer_access,
    closest_gpus,
    nvlink_up,
    nvlink_unused,
)
