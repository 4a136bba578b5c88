"""`dsv4 probe`: ask a health server once, for HEALTHCHECK and exec probes, which run it every few seconds."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...healthcheck.probe import GROUPS, probe
from ..listen import HEALTH_PORT, health_address
from ..terminal import printable
from . import arguments

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "probe",
        "Ask a running replica whether it is started, live or ready.",
        run,
        epilog="Exit status 1: it is not, or nothing answers. The checks that failed are printed.",
    )
    parser.add_argument(
        "check",
        metavar="|".join(GROUPS),
        choices=GROUPS,
        help="ask whether it has started, makes progress, or may receive traffic",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="HOST", help="host of the health server (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=arguments.port,
        metavar="PORT",
        help=f"port of the health server (env: DSV4_HEALTH_PORT; default: {HEALTH_PORT})",
    )
    parser.add_argument(
        "--timeout",
        type=arguments.above_zero("number of seconds", 3600),
        default="5",
        metavar="SECONDS",
        help="give up without an answer after SECONDS (default: %(default)s)",
    )


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Ask; 1 where a check failed."""
    port = options.port or _replicas_port(os.environ)
    status, text = probe(options.check, options.host, port, options.timeout)
    print(printable(text), file=sys.stderr if status else sys.stdout)
    return status


def _replicas_port(environ: Mapping[str, str]) -> int:
    """Return the port that `serve` listens on with these variables; raise ConfigError where it has no fixed one."""
    if not (number := health_address(environ)[1]):
        from ..errors import ConfigError

        raise ConfigError("environment DSV4_HEALTH_PORT = 0 lets `serve` take any free port; name it with --port.")
    return number
