"""`dsv4 up`: start replicas and a balancer as containers."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from . import arguments
from .arguments import count, port
from .output import print_message
from .this_machine import this_machine

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
        epilog="Every other flag is vLLM's own and goes to each replica. A model's folder is mounted read-only.",
    )
    parser.add_argument("--replicas", type=count, metavar="N", help="as many as the GPUs allow if absent")
    parser.add_argument(
        "--gpus",
        action="append",
        default=[],
        metavar="A,B",
        help="GPUs of one replica, by topology if absent; repeatable",
    )
    parser.add_argument(
        "--api-key-file", metavar="FILE", help="the bearer key (API_KEY_FILE); secrets/api-key if absent"
    )
    parser.add_argument(
        "--port", type=port, default=8000, metavar="N", help="where the API listens on this host (8000)"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the replicas are ready")
    arguments.add_images(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Start them, and wait until they are ready unless --no-wait is given."""
    from ..containers import daemon, up
    from ..containers import options as replicas
    from .request import request, resolved

    options = replicas.with_demo(options, os.environ)
    _, plan = resolved(options, argv)
    deployment = replicas.deployment(options, argv, request(options, argv), plan, this_machine().topology)
    up.up(daemon.connect(os.environ), deployment, print_message, wait=not options.no_wait)
    return 0
