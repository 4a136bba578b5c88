"""Wait until replicas are ready, and say how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from ..errors import HostError
from .daemon import Daemon, saying
from .observe import Seen, observe

STEP = 1.0
QUIET = 15.0
"""Seconds after which a line is said although no phase has changed."""
SILENT = 120.0
"""Seconds that a container may run before its health server answers; it does so before anything is loaded."""


def until_ready(daemon: Daemon, names: Sequence[str], say: Callable[[str], None]) -> None:
    """
    Return when every replica of `names` is ready; say a line when a phase changes, and every 15 s.

    Raise HostError when one ends, starts over, or never answers. How long a phase may take is the replica's own affair:
    one that stalls ends itself.
    """
    began: dict[str, str] = {}
    said, spoke, start = "", 0.0, time.monotonic()
    while True:
        with saying("The replicas cannot be watched"):
            found = {name: observe(daemon.client.containers.get(name)) for name in names}
        now = time.monotonic()
        for name, seen in found.items():
            if seen.state != "running" or began.setdefault(name, seen.began) != seen.began:
                raise HostError(f"{name} ended before it was ready{_last_words(daemon, name)}")
            if not seen.answers and now - start > SILENT:
                raise HostError(
                    f"{name} runs for {SILENT:.0f} s and its health server does not answer; see `dsv4 logs {name}`."
                )
        phases = " ".join(seen.phase for seen in found.values())
        if phases != said or now - spoke > QUIET:
            said, spoke = phases, now
            say(", ".join(line(seen) for seen in found.values()))
        if all(seen.ready for seen in found.values()):
            return
        time.sleep(STEP)


def line(seen: Seen) -> str:
    """Return a few words on how far one replica is: `dsv4-replica-0 loading weights 43 %`."""
    if not seen.answers:
        return f"{seen.name} starting"
    done = "" if seen.percent is None or seen.ready else f" {seen.percent:.0f} %"
    return f"{seen.name} {seen.phase}{done}"


def _last_words(daemon: Daemon, name: str) -> str:
    """Return the end status where the container has not started over, and the last that it said before it ended."""
    with saying(f"The log of {name} cannot be read"):
        container = daemon.client.containers.get(name)
        state = container.attrs["State"]
        until = datetime.fromisoformat(state["StartedAt"]).timestamp() if state["Running"] else None
        lines = container.logs(tail=50, until=until).decode(errors="replace").splitlines()
    status = "" if state["Running"] else f" (status {state['ExitCode']})"
    own = [text for text in lines if text.startswith("dsv4: ")] or [text for text in lines if text.strip()]
    return f"{status}: {own[-1].strip()}" if own else f"{status}, without a word; see `dsv4 logs {name}`."
