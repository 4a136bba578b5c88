"""`dsv4 probe`: ask a health server once, for HEALTHCHECK and exec probes, which run it every few seconds."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ...healthcheck.probe import GROUPS, probe
from ..listen import HEALTH_PORT, health_port_text

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "probe",
        "Ask a running replica whether it is started, live or ready.",
        run,
        epilog="Exit status 1: it is not, or nothing answers; the checks that failed are printed.",
    )
    parser.add_argument("check", choices=GROUPS, help="has it started, is it alive, may it receive traffic")
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="the health server's host (%(default)s)")
    parser.add_argument(
        "--port",
        type=port,
        default=health_port_text(os.environ),
        metavar="PORT",
        help=f"the health server's port (DSV4_HEALTH_PORT; {HEALTH_PORT})",
    )
    parser.add_argument(
        "--timeout", type=timeout, default="5", metavar="SECONDS", help="wait for an answer (%(default)s)"
    )


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Ask; 1 where a check failed."""
    status, text = probe(options.check, options.host, options.port, options.timeout)
    print(text, file=sys.stderr if status else sys.stdout)
    return status


def port(text: str) -> int:
    """Return a port; raise ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535 (--port, DSV4_HEALTH_PORT)")
    return int(text)


def timeout(text: str) -> float:
    """Return a time to wait; raise ArgumentTypeError for anything else."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to 3600")
    return seconds
