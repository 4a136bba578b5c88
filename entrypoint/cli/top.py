"""`dsv4 top`: watch replicas live."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import arguments

if TYPE_CHECKING:
    from ..top.reading import TopReading
    from ..top.screen import Look
    from .parser import Commands

_TICK = 0.2  # seconds between two looks for a key and a changed size
Read = Callable[[], "list[TopReading]"]


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "top",
        "Watch replicas live: phase, speed, draft acceptance, queue.",
        run,
        details="Without --health it shows what `dsv4 up` started, else the replica of this host. q or Ctrl-C ends it.",
        epilog="Exit status of --once: 1 where not every replica is ready.",
    )
    parser.add_argument(
        "--health",
        action="append",
        default=[],
        metavar="URL",
        help="address of a replica's health server; repeatable (default: see above, port DSV4_HEALTH_PORT or 8001)",
    )
    parser.add_argument("--api-key-file", metavar="FILE", help="read the bearer key from FILE (env: API_KEY_FILE)")
    parser.add_argument(
        "--every", type=arguments.seconds, default="2", metavar="S", help="ask every S seconds (default: %(default)s)"
    )
    parser.add_argument("--once", action="store_true", help="print one frame as plain text, and end")
    arguments.add_format(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Show frames until a key or a signal ends it; with --once, print one."""
    from ..top import reading, targets
    from . import full_screen

    def read() -> list[TopReading]:
        found, key = targets.find(options.health, options.api_key_file, os.environ)
        return reading.read_all(found, key)

    if options.once:
        found = read()
        _print(options, found)
        return 0 if all(one.ready for one in found) else 1
    if options.format == "json" or not full_screen.possible(os.environ, sys.stdout):
        return _print_frames(options, read)
    return _draw_frames(options.every, read)


def _print_frames(options: argparse.Namespace, read: Read) -> int:
    """Print one frame after another where none can be drawn over."""
    while True:
        _print(options, read())
        time.sleep(options.every)


def _print(options: argparse.Namespace, found: list[TopReading]) -> None:
    from datetime import UTC, datetime

    if options.format == "json":
        answer = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "replicas": [one.to_json() for one in found]}
        print(json.dumps(answer), flush=True)
    else:
        print("\n".join(_lines(found, _look(len(found)))), end="\n" if options.once else "\n\n", flush=True)


def _draw_frames(every: float, read: Read) -> int:
    from concurrent.futures import ThreadPoolExecutor

    from ..client import local_replica
    from . import full_screen

    found: list[TopReading] = read()
    with local_replica.stops_raise(), ThreadPoolExecutor(1) as pool, full_screen.opened() as screen:
        requested_at, pending, drawn = time.monotonic(), None, None
        while True:
            if pending is None and time.monotonic() - requested_at >= every:
                requested_at, pending = time.monotonic(), pool.submit(read)
            if pending is not None and pending.done():
                found, pending, drawn = pending.result(), None, None
            if drawn != (size := screen.size()):
                screen.draw(_lines(found, _look(0, size)))
                drawn = size
            if screen.key(_TICK) in ("q", "Q"):
                return 0


def _lines(found: list[TopReading], look: Look) -> list[str]:
    from datetime import UTC, datetime

    from ..top import frame, screen

    return screen.rendered(frame.frame(found, datetime.now(UTC), look), look)


def _look(replicas: int, size: tuple[int, int] | None = None) -> Look:
    """Return the terminal's look; text for a pipe is as long as it has to be, and has no colours."""
    from ..top.screen import Look

    blocks = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    if size is None:
        return Look(columns=1000, lines=100 + 4 * replicas, blocks=blocks)
    return Look(*size, colours=not os.environ.get("NO_COLOR"), blocks=blocks)
