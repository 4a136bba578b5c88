"""Host: every check of the doctor, before anything is started."""

from __future__ import annotations

from ...smoke.outcome import Outcome, failed, passed
from ..box import Box


def host(box: Box) -> Outcome:
    """Driver, GPUs, topology, limits, patches and memory for the plan; problems of weights that are here too."""
    report = box.doctor()
    notes = [one.name for one in report.diagnoses if not one.problem.fatal]
    if report.fatal:
        seen = "; ".join(f"{one.name}: {one.problem.seen}" for one in report.fatal)
        fixes = "; ".join(one.problem.fix for one in report.fatal)
        return failed(seen, fixes, problems=[one.name for one in report.fatal])
    more = f"; notes: {', '.join(notes)} (see `dsv4 doctor`)" if notes else ""
    return passed(f"no problem would prevent a start{more}", notes=notes)
