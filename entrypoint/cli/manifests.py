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
        details="It writes a Kustomize overlay, or prints the rendered manifests.",
        epilog="What `dsv4 explain` refuses is refused here too. Put vLLM's flags into a profile."
        " Of this shell, only PROFILE, MODEL, HARDWARE, TP, DSV4_NCCL, DSV4_SKIP and DSV4_PROFILES are read."
        " Profile files of DSV4_PROFILES go into a ConfigMap.",
    )
    parser.add_argument("--replicas", required=True, type=count, metavar="N", help="run N replicas")
    parser.add_argument(
        "--nodes",
        type=count,
        metavar="N",
        help="spread each replica over N nodes, as a LeaderWorkerSet group (default: 1; on GB10, one node per GPU)",
    )
    parser.add_argument(
        "--weights",
        default=f"pvc:{CLAIM}",
        metavar="W",
        help="take the weights from pvc:CLAIM, hostpath:/FOLDER or image:REF@sha256:…, in a folder for each model,"
        " or `fetch` them from the Hub (default: %(default)s)",
    )
    parser.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        metavar="NAMES",
        help="add components, in any order: haproxy, router or gateway-inference; ingress=[CLASS/]HOST,"
        " gateway=[CLASS/]HOST, monitoring[=URL], autoscale[=MAX], dra, kernels=oci://…, node-disk[=URL],"
        " priority[=CLASS]; repeatable",
    )
    parser.add_argument(
        "--image", metavar="REF", help="image of the replicas, by digest (default: a placeholder for you to replace)"
    )
    parser.add_argument(
        "--namespace", default="dsv4", metavar="NS", help="put every object into this namespace (default: %(default)s)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write a folder for `kubectl apply -k` (default: render to stdout)"
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
    for warning in overlay.warnings:
        print_message(f"warning: {warning}")
    if overlay.capacity:
        print_message(f"capacity: {overlay.capacity}")
    if options.out is None:
        print(write.stream(overlay), end="")
        return 0
    write.folder(overlay, Path(options.out))
    print_message(f"wrote {options.out}; apply it with `kubectl apply -k {options.out}`")
    return 0
