"""Arguments that several commands take, and the types of arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

VLLM_FLAGS = (
    "--gate.KEY and --supervise.KEY change how a replica is tested and watched."
    " Every other flag is vLLM's own, before or after `--`."
)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a plan."""
    group = parser.add_argument_group("plan")
    group.add_argument(
        "--profile",
        metavar="P",
        help="name the profile, or let `auto`, `auto:context` or `auto:throughput` choose one that fits"
        " (env: PROFILE; default: 524k)",
    )
    group.add_argument(
        "--model",
        metavar="M",
        help="name the model, its Hub repository, its folder, or NAME=FOLDER (env: MODEL; default: by hardware)",
    )
    group.add_argument(
        "--hardware", metavar="H", help="name the kind of GPU (env: HARDWARE; default: read through NVML)"
    )
    group.add_argument("--tp", metavar="N", help="split the model over N GPUs (env: TP; default: by profile)")
    group.add_argument(
        "--nccl", metavar="SET", help="name a set of NCCL variables, or `none` (env: DSV4_NCCL; default: by topology)"
    )
    group.add_argument(
        "--skip",
        metavar="NAME",
        action="append",
        default=[],
        help="override one check or refusal; repeatable (env: DSV4_SKIP)",
    )


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the format of the answer."""
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="print text for people, or JSON for programs (default: text)",
    )


def add_out(parser: argparse.ArgumentParser, what: str = "write the result to this folder") -> None:
    """Add the folder of results; `what` says what is done there."""
    parser.add_argument(
        "--out", type=Path, default=Path("qualification"), metavar="FOLDER", help=f"{what} (default: %(default)s)"
    )


def add_share(parser: argparse.ArgumentParser) -> None:
    """Add the file for other people."""
    parser.add_argument(
        "--share", metavar="FILE.json", help="also write what can be published: no path, host name or secret"
    )


def add_collective(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the switch for the all-reduce trial; `default` says when it is tried otherwise."""
    parser.add_argument(
        "--collective",
        action=argparse.BooleanOptionalAction,
        help=f"try an all-reduce between the GPUs, for 20 s at most (default: {default})",
    )


def add_replica(parser: argparse.ArgumentParser) -> None:
    """Add the options that locate a running replica."""
    group = parser.add_argument_group("replica")
    group.add_argument(
        "--url",
        metavar="URL",
        help="address of vLLM's OpenAI API (default: http://localhost:8000, or the port in PORT)",
    )
    group.add_argument(
        "--health",
        metavar="URL",
        help="address of the replica's health server, or `none` (default: same host, port DSV4_HEALTH_PORT or 8001)",
    )
    group.add_argument("--api-key-file", metavar="FILE", help="read the bearer key from FILE (env: API_KEY_FILE)")


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the images of replicas and of their balancer."""
    group = parser.add_argument_group("images")
    group.add_argument("--image", metavar="NAME", help="image of the replicas (env: DSV4_IMAGE; default: dsv4-serve)")
    group.add_argument(
        "--balancer-image",
        metavar="NAME",
        help="image of the balancer, HAProxy (env: BALANCER_IMAGE; default: HAProxy 3.0 by digest)",
    )


def add_without_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options for a replica of our own that has no weights."""
    from ..bench.options import ACCEPTANCE, START_SECONDS

    [rate] = ACCEPTANCE
    group = parser.add_argument_group("without weights")
    group.add_argument(
        "--without-weights",
        action="store_true",
        help="start a replica with dummy weights of the real size, and stop it at the end",
    )
    group.add_argument(
        "--acceptance",
        type=share,
        nargs="+",
        metavar="R",
        help=f"accept this share of draft tokens at random; one value, or one for each draft token (default: {rate})",
    )
    group.add_argument(
        "--start-timeout",
        type=seconds,
        metavar="S",
        help=f"give up when it is not ready after S seconds (default: {START_SECONDS:g})",
    )


def count(text: str) -> int:
    """Return a whole number of at least 1, written in digits; raise ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def port(text: str) -> int:
    """Return a port; raise ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def share(text: str) -> float:
    """Return a share from 0 to 1; raise ArgumentTypeError for anything else."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return number


def above_zero(what: str = "number", most: float | None = None) -> Callable[[str], float]:
    """Return the type of a finite number above 0, up to `most`; it raises ArgumentTypeError for anything else."""
    limit = "" if most is None else f" and up to {most:.10g}"

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf") or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what} above 0{limit}")
        return number

    return read


days = above_zero("number of days", 36_500)
seconds = above_zero("number of seconds", 604_800)  # a week; no timer of the kernel takes every number
hours = above_zero("number of hours", 168)
