"""Report what runs, its progress, and whether its draft head drafts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from ..text_table import table
from .daemon import Daemon, engine_errors
from .observe import ContainerState, observe

HEAD = ("name", "gpus", "phase", "ready", "acceptance", "since")


def status(daemon: Daemon) -> list[ContainerState]:
    """Return the state of everything that `dsv4 up` made; all are queried at once, so that timeouts do not add up."""
    ours = list(daemon.ours().values())
    with engine_errors("The containers cannot be read"), ThreadPoolExecutor(len(ours) or 1) as pool:
        return list(pool.map(observe, ours))


def text(states: Sequence[ContainerState], now: datetime) -> str:
    """Return one row for each, followed by its progress, or what is wrong with it."""
    if not states:
        return "nothing is running; `dsv4 up` starts it"
    rows: list[tuple[str, ...]] = [HEAD]
    for state in states:
        done = "" if state.percent is None or state.ready else f" {state.percent:.0f} %"
        accepted = state.acceptance.partition(",")[0] or "-"
        ready = "yes" if state.ready else "no"
        rows.append((state.name, state.gpus or "-", state.phase + done, ready, accepted, _since(state.began, now)))
    head, *lines = table(rows).splitlines()
    pairs = zip(states, lines, strict=True)
    blocks = [[line, *([f"    {state.detail}"] if state.detail else [])] for state, line in pairs]
    return "\n".join([head, *(line for block in blocks for line in block)])


def _since(began: str, now: datetime) -> str:
    """Return the time since a timestamp of the engine; year 1 means never."""
    then = datetime.fromisoformat(began)
    seconds = (now - then).total_seconds()
    if then.year == 1:
        return "never"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
