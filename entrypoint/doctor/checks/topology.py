"""Check how a replica's GPUs are connected against a plan's NCCL settings."""

from __future__ import annotations

from ...machine.requirements import HostRequirements
from ...machine.topology import Topology, closest, distance, obstacle_to_peers
from ...problem import Problem, check

_RFC = "https://github.com/vllm-project/vllm/issues/51513"
_ORDER = "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={gpus}"
_GPUDIRECT = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#gpu-direct"


@check(
    symptom="No available shared memory broadcast block found in 60 seconds, repeated forever, after CUDA graphs",
    link=_RFC,
    remedy="add --disable-custom-all-reduce",
    failures=(1, 2, 4),
    tried="constructed",
)
def custom_all_reduce(topology: Topology, required: HostRequirements) -> Problem | None:
    """vLLM's own all-reduce is off on exactly two GPUs without NVLink, where it hangs with any NCCL settings."""
    group = served(topology, required)
    if len(group) != 2 or not required.custom_all_reduce or topology.nvlinked(group):
        return None
    return Problem(
        f"GPUs {group[0]} and {group[1]} have no NVLink, but vLLM's own all-reduce is on",
        "NCCL's all-reduce",
    )


@check(
    symptom="vLLM hangs; the last line is `vLLM is using nccl==`; both GPUs at 100 %",
    link=_RFC,
    remedy="--nccl p2p-off (DSV4_NCCL)",
    failures=(3,),
    tried="constructed",
)
def peer_access(topology: Topology, required: HostRequirements) -> Problem | None:
    """NCCL uses peer access over PCIe only where nothing prevents it."""
    group = served(topology, required)
    if len(group) < 2 or not required.peer_access or topology.nvlinked(group):
        return None
    obstacle = obstacle_to_peers(topology, group)
    if not obstacle:
        return None
    return Problem(
        f"NCCL may use peer access over PCIe, but {obstacle}",
        "the NCCL set p2p-off, or a host with IOMMU and ACS off",
    )


@check(
    symptom="12 instead of 34 tokens/s: traffic crosses the CPU sockets",
    link="https://github.com/NVIDIA/nccl/issues/2079",
    remedy=_ORDER,
    tried="constructed",
)
def closest_gpus(topology: Topology, required: HostRequirements) -> Problem | None:
    """The replica's GPUs are the closest ones among the visible GPUs."""
    group = served(topology, required)
    best = closest(topology, required.group)
    if len(group) < 2 or len(group) < required.group or distance(topology, best) >= distance(topology, group):
        return None
    worst = max(topology.within(group), key=lambda pair: distance(topology, (pair.a, pair.b)))
    return Problem(
        f"GPUs {_list(group)} are connected through {worst.ancestor}, but GPUs {_list(best)} are closer",
        "close GPUs in one replica",
        _ORDER.format(gpus=",".join(map(str, best))),
        fatal=False,
    )


@check(
    symptom="slow all-reduce on a board with NVLink",
    link=_GPUDIRECT,
    remedy="select GPUs that NVLink connects (CUDA_VISIBLE_DEVICES), or --nccl p2p-off with"
    " --disable-custom-all-reduce",
    tried="constructed",
)
def nvlink_up(topology: Topology, required: HostRequirements) -> Problem | None:
    """On hardware with NVLink, it connects every pair of the replica's GPUs."""
    group = served(topology, required)
    apart = [pair for pair in topology.within(group) if not pair.nvlink]
    if required.interconnect != "nvlink" or not apart:
        return None
    return Problem(
        f"no NVLink between GPUs {apart[0].a} and {apart[0].b}",
        f"NVLink, as {required.hardware} has",
        fatal=False,
    )


@check(
    symptom="slow all-reduce on NVLink with settings meant for PCIe",
    link=_GPUDIRECT,
    remedy="--nccl none (DSV4_NCCL), or nvlink-only where NVLink connects only some of the GPUs",
    tried="constructed",
)
def nvlink_unused(topology: Topology, required: HostRequirements) -> Problem | None:
    """NCCL may use NVLink, which NCCL_P2P_DISABLE disables too."""
    group = served(topology, required)
    linked = [pair for pair in topology.within(group) if pair.nvlink]
    if required.nvlink or not linked:
        return None
    some = "" if topology.nvlinked(group) else "some of "
    return Problem(
        f"NVLink connects {some}GPUs {_list(group)}, but NCCL_P2P_DISABLE disables it",
        "NCCL settings that leave NVLink on",
        fatal=False,
    )


def served(topology: Topology, required: HostRequirements) -> tuple[int, ...]:
    """Return the GPUs of the first replica: the first of those that are visible."""
    return topology.gpus[: required.group]


def _list(group: tuple[int, ...]) -> str:
    return ", ".join(map(str, group))
