"""`dsv4 probe`: one question to a health server, for HEALTHCHECK and exec probes, which run it every few seconds."""

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
    parser.add_argument("check", choices=GROUPS, help="what is asked: has it started, is it alive, may it get traffic")
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="of the health server (%(default)s)")
    parser.add_argument(
        "--port",
        type=port,
        default=health_port_text(os.environ),
        metavar="PORT",
        help=f"of the health server (DSV4_HEALTH_PORT; {HEALTH_PORT})",
    )
    parser.add_argument("--timeout", type=timeout, default="5", metavar="SECONDS", help="for an answer (%(default)s)")


def run(options: argparse.Namespace, _words: list[str]) -> int:
    """Ask; 1 where a check failed."""
    status, text = probe(options.check, options.host, options.port, options.timeout)
    print(text, file=sys.stderr if status else sys.stdout)
    return status


def port(text: str) -> int:
    """Return a port; raise ArgumentTypeError for none."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to 65535 (--port, DSV4_HEALTH_PORT)")
    return int(text)


def timeout(text: str) -> float:
    """Return a time to wait; raise ArgumentTypeError for none."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 3600")
    return seconds
