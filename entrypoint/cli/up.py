"""`dsv4 up`: start replicas and a balancer as containers."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..listen import API_PORT
from . import arguments
from .arguments import count, port
from .this_machine import this_machine
from .updating_line import UpdatingLine

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "up",
        "Start replicas and a balancer as containers until all are ready.",
        run,
        details="Containers that already run as requested are kept.",
        takes_vllm_flags=True,
        epilog=f"{arguments.VLLM_FLAGS} A model's folder is mounted read-only.",
    )
    parser.add_argument(
        "--replicas", type=count, metavar="N", help="start N replicas (default: as many as the GPUs allow)"
    )
    parser.add_argument(
        "--gpus",
        action="append",
        default=[],
        metavar="A,B",
        help="give these GPUs to one replica; repeatable (default: by topology)",
    )
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="read the bearer key from FILE (env: API_KEY_FILE; default: secrets/api-key)",
    )
    parser.add_argument(
        "--port",
        type=port,
        default=API_PORT,
        metavar="N",
        help="serve the API on this port of the host (default: %(default)s)",
    )
    parser.add_argument("--no-wait", action="store_true", help="return at once, before the replicas are ready")
    arguments.add_images(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Start them, and wait until they are ready unless --no-wait is given."""
    from ..containers import daemon, up
    from ..containers import options as replicas
    from ..machine import detect
    from .request import request, resolved

    options = replicas.with_demo(options, os.environ)
    _, plan = resolved(options, argv)
    deployment = replicas.deployment(options, argv, request(options, argv), plan, detect.topology_of(this_machine()))
    with UpdatingLine() as line:
        up.up(daemon.connect(os.environ), deployment, line.message, wait=not options.no_wait, watch=line.watch)
    return 0
