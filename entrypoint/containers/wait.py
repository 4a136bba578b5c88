"""Wait until replicas are ready, and log their progress."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from ..errors import HostError
from .daemon import Daemon, Log, engine_errors
from .observe import ContainerState, observe

STEP = 1.0
QUIET = 15.0
"""Seconds after which a line is logged although no phase has changed."""
SILENT = 120.0
"""Seconds that a container may run before its health server answers; it does so before anything is loaded."""


def until_ready(daemon: Daemon, names: Sequence[str], log: Log, watch: Log | None = None) -> None:
    """
    Return when every replica of `names` is ready; log a line when a phase changes, and every 15 s.

    With `watch`, which a terminal has, it gets the line every second instead.

    Raise HostError when one ends, restarts, or never answers. There is no limit for a phase here: a replica that stalls
    ends by itself.
    """
    began: dict[str, str] = {}
    logged, logged_at, start = "", 0.0, time.monotonic()
    while True:
        with engine_errors("The state of the replicas cannot be read"):
            states = {name: observe(daemon.client.containers.get(name)) for name in names}
        now = time.monotonic()
        for name, state in states.items():
            if state.status != "running" or began.setdefault(name, state.began) != state.began:
                raise HostError(f"{name} ended before it was ready{_last_message(daemon, name)}")
            if not state.answers and now - start > SILENT:
                raise HostError(
                    f"{name} has run for {SILENT:.0f} s, but its health server does not answer; see `dsv4 logs {name}`."
                )
        phases = " ".join(state.phase for state in states.values())
        if watch or phases != logged or now - logged_at > QUIET:
            logged, logged_at = phases, now
            (watch or log)(", ".join(line(state) for state in states.values()))
        if all(state.ready for state in states.values()):
            return
        time.sleep(STEP)


def line(state: ContainerState) -> str:
    """Return the progress of one replica: `dsv4-replica-0 loading weights 43 % at 1.5 GiB/s, about 40 s left`."""
    if not state.answers:
        return f"{state.name} starting"
    if state.ready:
        return f"{state.name} {state.phase}"
    done = "" if state.percent is None else f" {state.percent:.0f} %"
    rate = "" if state.rate is None else f" at {state.rate / 2**30:.1f} GiB/s"
    step = f" ({state.step})" if state.step else ""
    left = "" if state.seconds_left is None else f", about {state.seconds_left:.0f} s left"
    return f"{state.name} {state.phase}{done}{rate}{step}{left}"


def _last_message(daemon: Daemon, name: str) -> str:
    """Return the exit status, unless the container has restarted, and its last message before it ended."""
    with engine_errors(f"The log of {name} cannot be read"):
        container = daemon.client.containers.get(name)
        state = container.attrs["State"]
        until = datetime.fromisoformat(state["StartedAt"]).timestamp() if state["Running"] else None
        lines = container.logs(tail=50, until=until).decode(errors="replace").splitlines()
    status = "" if state["Running"] else f" (status {state['ExitCode']})"
    own = [text for text in lines if text.startswith("dsv4: ")] or [text for text in lines if text.strip()]
    return f"{status}: {own[-1].strip()}" if own else f"{status}, without a message; see `dsv4 logs {name}`."
