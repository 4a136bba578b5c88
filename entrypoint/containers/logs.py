"""Read the logs of every container, or of one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from .. import json_log
from ..errors import ConfigError
from .containers import BALANCER, name_of
from .daemon import Daemon, engine_errors


def lines(daemon: Daemon, name: str | None, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
    """
    Yield lines, with the container's name before each if there are several; while following, as they arrive.

    Raise ConfigError for an unknown name.
    """
    chosen = _chosen(daemon, name)
    if not follow or len(chosen) == 1:
        for container in chosen:
            yield from _marked(container, _lines(container, follow, tail), len(chosen) > 1)
        return
    arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(container: Any) -> None:
        try:
            for line in _marked(container, _lines(container, follow, tail), several=True):
                arrived.put(line)
        finally:
            arrived.put(None)

    for container in chosen:
        threading.Thread(target=read, args=(container,), daemon=True).start()
    ended = 0
    while ended < len(chosen):
        if (line := arrived.get()) is None:
            ended += 1
        else:
            yield line


def _chosen(daemon: Daemon, name: str | None) -> list[Any]:
    ours = daemon.ours()
    if name is None:
        return list(ours.values())
    full = BALANCER if name == "balancer" else name_of(int(name)) if name.isdecimal() else name
    if full not in ours:
        raise ConfigError(f"`dsv4 up` started no {full}; it started {', '.join(ours) or 'nothing'}.")
    return [ours[full]]


def _lines(container: Any, follow: bool, tail: int | None) -> Iterator[str]:
    with engine_errors(f"The log of {container.name} cannot be read"):
        rest = b""
        for part in container.logs(stream=True, follow=follow, tail=tail or "all"):
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                yield from _lines_of(line)
        if rest:
            yield from _lines_of(rest)


def _lines_of(line: bytes) -> list[str]:
    """Return a line; one for each line of the message of a JSON object."""
    text = _text(line)
    shown = json_log.readable(text)
    return [text] if shown is text else shown.splitlines()


def _text(line: bytes) -> str:
    """Return a line; of a progress bar, which begins each of its states with \\r, the last one."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")


def _marked(container: Any, lines: Iterator[str], several: bool) -> Iterator[str]:
    return (f"{container.name} | {line}" for line in lines) if several else lines
