"""What the all-reduce showed. Each check takes (Result,)."""

from __future__ import annotations

from collections.abc import Callable

from ...problem import Problem, Wild, check
from ..all_reduce.probe import Result

_GOES = "an all-reduce that goes through"


@check(
    Wild(
        "vLLM hangs for ever after `vLLM is using nccl==`; NCCL's watchdog gives up after 600 s",
        "https://github.com/local-inference-lab/rtx6kpro/issues/15",
        (3,),
        tried="for real",
    )
)
def collective_hang(result: Result) -> Problem | None:
    """The ranks reach the end of every all-reduce."""
    if not result.hung_at:
        return None
    return Problem(
        f"an all-reduce between {result.ranks} processes {result}",
        _GOES,
        "--nccl p2p-off with --disable-custom-all-reduce, or switch IOMMU and ACS off on the host",
    )


@check(
    Wild(
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed",
        "https://github.com/vllm-project/vllm/issues/6574",
        tried="for real",
    )
)
def collective_error(result: Result) -> Problem | None:
    """No rank ends with an error."""
    if not result.message or "wrong sum" in result.message or result.inconclusive:
        return None
    return Problem(
        f"an all-reduce between {result.ranks} processes failed, {result.message}",
        _GOES,
        "read NCCL's own words with NCCL_DEBUG=WARN; most often /dev/shm is too small (--shm-size=16g)",
    )


@check(
    Wild(
        "fluent nonsense at tensor parallel size 2, right answers at 1",
        "https://github.com/vllm-project/vllm/issues/51513",
        tried="for real",
    )
)
def collective_wrong(result: Result) -> Problem | None:
    """The sum is right, bit for bit."""
    if "wrong sum" not in result.message:
        return None
    return Problem(
        f"data was changed on its way between GPUs ({result.message})",
        "the right sum",
        "--nccl p2p-off with --disable-custom-all-reduce; if it stays, the hardware is ill",
    )


@check(Wild("a first start from a slow disk", "https://github.com/vllm-project/vllm/issues/15862", tried="for real"))
def collective_unknown(result: Result) -> Problem | None:
    """The all-reduce could be tried to its end."""
    if not result.inconclusive:
        return None
    return Problem(
        f"the all-reduce told nothing: {result}",
        "a torch that imports, and a host that is not busy",
        "run it again, now that torch's files are in memory; python -c 'import torch' shows what is wrong with it",
        fatal=False,
    )


CHECKS: tuple[Callable[[Result], Problem | None], ...] = (
    collective_hang,
    collective_error,
    collective_wrong,
    collective_unknown,
)
