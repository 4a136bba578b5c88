"""`dsv4 manifests`: write Kubernetes manifests for a fleet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..kubernetes.weights import CLAIM
from . import arguments
from .arguments import count
from .output import print_message

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "manifests",
        "Write Kubernetes manifests for a fleet of replicas.",
        run,
        details="An overlay over the shipped base, or the rendered stream.",
        epilog="Combinations that `dsv4 explain` refuses are refused here too. vLLM's flags belong in a profile."
        " PROFILE, MODEL, HARDWARE, TP, DSV4_NCCL and DSV4_SKIP of this shell are read; no other variable is."
        " A pod uses the profiles in its image.",
    )
    parser.add_argument("--replicas", required=True, type=count, metavar="N", help="how many replicas")
    parser.add_argument(
        "--weights",
        default=f"pvc:{CLAIM}",
        metavar="W",
        help="pvc:CLAIM, hostpath:/FOLDER, image:REF@sha256:… or fetch; each holds a folder for the model"
        " (%(default)s)",
    )
    parser.add_argument("--image", metavar="REF", help="the image of the replicas, by its digest")
    parser.add_argument("--namespace", default="dsv4", metavar="NS", help="the namespace of every object (dsv4)")
    parser.add_argument(
        "--out", metavar="DIR", help="a folder for `kubectl apply -k`; if absent it is rendered to stdout"
    )
    arguments.add_plan(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Write the folder, or print the stream."""
    from ..kubernetes import options as kubernetes
    from ..kubernetes import write
    from .request import request

    overlay = kubernetes.overlay(options, request(options, []))
    for note in overlay.notes:
        print_message(f"before you apply it: {note}")
    if options.out is None:
        print(write.stream(overlay), end="")
        return 0
    write.folder(overlay, Path(options.out))
    print_message(f"wrote {options.out}; apply it with `kubectl apply -k {options.out}`")
    return 0
