"""Checks of the all-reduce's result."""

from __future__ import annotations

from ...problem import Problem, check
from ..all_reduce.result import AllReduceResult

_COMPLETES = "an all-reduce that completes"


@check(
    symptom="vLLM hangs forever after `vLLM is using nccl==`; NCCL's watchdog gives up after 600 s",
    link="https://github.com/local-inference-lab/rtx6kpro/issues/15",
    remedy="--nccl p2p-off with --disable-custom-all-reduce, or turn off IOMMU and ACS on the host",
    failures=(3,),
    tried="for real",
)
def collective_hang(result: AllReduceResult) -> Problem | None:
    """The ranks complete every all-reduce."""
    if not result.hung_at:
        return None
    return Problem(
        f"an all-reduce between {result.ranks} processes {result}",
        _COMPLETES,
    )


@check(
    symptom="ncclSystemError: System call (e.g. socket, malloc) or external library call failed",
    link="https://github.com/vllm-project/vllm/issues/6574",
    remedy="read NCCL's own messages with NCCL_DEBUG=WARN; most often /dev/shm is too small (--shm-size=16g)",
    tried="for real",
)
def collective_error(result: AllReduceResult) -> Problem | None:
    """No rank ends with an error."""
    if not result.message or "wrong sum" in result.message or result.inconclusive:
        return None
    return Problem(
        f"an all-reduce between {result.ranks} processes failed: {result.message}",
        _COMPLETES,
    )


@check(
    symptom="fluent nonsense at tensor parallel size 2, correct answers at 1",
    link="https://github.com/vllm-project/vllm/issues/51513",
    remedy="--nccl p2p-off with --disable-custom-all-reduce; if it persists, the hardware is faulty",
    tried="for real",
)
def collective_wrong(result: AllReduceResult) -> Problem | None:
    """The sum is correct, bit for bit."""
    if "wrong sum" not in result.message:
        return None
    return Problem(
        f"data was corrupted between GPUs ({result.message})",
        "the correct sum",
    )


@check(
    symptom="a first start, with torch on a slow disk",
    link="https://github.com/vllm-project/vllm/issues/15862",
    remedy="run it again, now that torch's files are cached; python -c 'import torch' shows why it fails",
    tried="for real",
)
def collective_unknown(result: AllReduceResult) -> Problem | None:
    """The all-reduce could be run to its end."""
    if not result.inconclusive:
        return None
    return Problem(
        f"the all-reduce was inconclusive: {result}",
        "a torch that can be imported, and a host that is not overloaded",
        fatal=False,
    )
