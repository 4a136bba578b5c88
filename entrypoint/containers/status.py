"""`dsv4 status`: what runs, how far it is, and whether its draft head drafts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from ..text_table import table
from .daemon import Daemon, engine_errors
from .observe import ContainerState, observe

HEAD = ("name", "gpus", "phase", "ready", "acceptance", "since")


def status(daemon: Daemon) -> list[ContainerState]:
    """Return the state of everything that `dsv4 up` made; all are asked at once, so that timeouts do not add up."""
    ours = list(daemon.ours().values())
    with engine_errors("The containers cannot be read"), ThreadPoolExecutor(len(ours) or 1) as pool:
        return list(pool.map(observe, ours))


def text(states: Sequence[ContainerState], now: datetime) -> str:
    """Return one row for each, and beneath it how far it is, or what is wrong with it."""
    if not states:
        return "nothing runs; `dsv4 up` starts it"
    rows: list[tuple[str, ...]] = [HEAD]
    for one in states:
        done = "" if one.percent is None or one.ready else f" {one.percent:.0f} %"
        accepted = one.acceptance.partition(",")[0] or "-"
        ready = "yes" if one.ready else "no"
        rows.append((one.name, one.gpus or "-", one.phase + done, ready, accepted, _since(one.began, now)))
    head, *lines = table(rows).splitlines()
    beneath = [[line, *([f"    {one.detail}"] if one.detail else [])] for one, line in zip(states, lines, strict=True)]
    return "\n".join([head, *(line for lines in beneath for line in lines)])


def _since(began: str, now: datetime) -> str:
    """Return how long ago an engine's time was; year 1 stands for never."""
    then = datetime.fromisoformat(began)
    seconds = (now - then).total_seconds()
    if then.year == 1:
        return "never"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
