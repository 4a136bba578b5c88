"""All-reduce: the collective between the GPUs of a replica, timed, with the plan's NCCL settings."""

from __future__ import annotations

from ...doctor import registry
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
    result = try_all_reduce(box.plan, box.machine.topology, required, DoctorOptions(box.environ, collective=True))
    if isinstance(result, str):
        return skipped(result)
    if result.inconclusive:
        return inconclusive(str(result), "run it again while nothing else uses the machine")
    timings = {str(one.bytes): round(one.bandwidth / 1e9, 2) for one in result.timings}
    if problems := list(diagnose(registry.COLLECTIVE, (), result)):
        seen = "; ".join(one.problem.seen for one in problems)
        return failed(seen, problems[0].problem.fix, gigabytes_per_second=timings)
    if not result.ok:
        return failed(str(result), "see `dsv4 doctor --collective`, and try --nccl p2p-off")
    best = max(timings.values(), default=0.0)
    return passed(f"{result.ranks} ranks, {best:.1f} GB/s at most", gigabytes_per_second=timings)
