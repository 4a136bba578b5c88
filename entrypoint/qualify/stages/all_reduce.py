"""All-reduce: the collective between the GPUs of a replica, timed, with the plan's NCCL settings."""

from __future__ import annotations

from ...doctor import registry
from ...doctor.all_reduce.result import AllReduceResult
from ...doctor.all_reduce.trial import try_all_reduce
from ...doctor.options import DoctorOptions
from ...doctor.report import diagnose
from ...machine.requirements import host_requirements
from ...smoke.outcome import Outcome, failed, inconclusive, passed, skipped
from ..box import Box


def all_reduce(box: Box) -> Outcome:
    """1 KiB to 64 MiB are summed between all GPUs, in 20 s at most."""
    hardware, model = box.selection.hardware, box.selection.model
    required = host_requirements(box.plan, hardware, model.get("architecture"), box.environ)
    if required.group < 2:
        return skipped("one GPU has nothing to reduce" if required.group else "the plan needs no GPU")
    if len(box.machine.visible.indexes) < required.group:
        return skipped(f"the plan needs {required.group} GPUs, and fewer are visible")
    result = try_all_reduce(box.plan, box.machine.topology, required, DoctorOptions(box.environ, collective=True))
    return skipped(result) if isinstance(result, str) else judged(result)


def judged(result: AllReduceResult) -> Outcome:
    """Return the outcome of what was tried."""
    if result.inconclusive:
        return inconclusive(str(result), "run it again while nothing else uses the machine")
    speed = {str(one.bytes): round(one.bandwidth / 1e9, 2) for one in result.timings}
    if problems := list(diagnose(registry.COLLECTIVE, (), result)):
        seen = "; ".join(one.problem.seen for one in problems)
        return failed(seen, problems[0].problem.fix, gigabytes_per_second=speed)
    return passed(
        f"{result.ranks} ranks, {max(speed.values(), default=0.0):.1f} GB/s at most", gigabytes_per_second=speed
    )
