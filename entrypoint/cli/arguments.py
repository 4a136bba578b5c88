"""Arguments that several commands take, and the types of arguments."""

from __future__ import annotations

import argparse

VLLM_FLAGS = "Every other flag is vLLM's own, before or after `--`."


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a plan."""
    group = parser.add_argument_group("plan")
    group.add_argument("--profile", metavar="P", help="a way to serve, from `dsv4 profiles`, or `auto` (PROFILE)")
    group.add_argument("--model", metavar="M", help="a model, its repository, a folder, or NAME=FOLDER (MODEL)")
    group.add_argument("--hardware", metavar="H", help="the kind of GPU; read through NVML if absent (HARDWARE)")
    group.add_argument("--tp", metavar="N", help="tensor parallel size, in GPUs (TP)")
    group.add_argument("--nccl", metavar="SET", help="a set of NCCL variables, or `none` (DSV4_NCCL)")
    group.add_argument(
        "--skip", metavar="NAME", action="append", default=[], help="override one check or refusal by name (DSV4_SKIP)"
    )


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the format of the answer."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text for people (default), or JSON")


def add_collective(parser: argparse.ArgumentParser) -> None:
    """Add the switch for the all-reduce trial."""
    parser.add_argument(
        "--collective",
        action=argparse.BooleanOptionalAction,
        help="try an all-reduce between the GPUs, 20 s at most (serve tries it where they have no NVLink)",
    )


def add_replica(parser: argparse.ArgumentParser) -> None:
    """Add the options that locate a running replica."""
    group = parser.add_argument_group("replica")
    group.add_argument("--url", metavar="URL", help="vLLM's OpenAI server (http://localhost:PORT, 8000 without PORT)")
    group.add_argument(
        "--health", metavar="URL", help="the replica's health server, or `none` (same host, DSV4_HEALTH_PORT or 8001)"
    )
    group.add_argument("--api-key-file", metavar="FILE", help="a file that holds the bearer key (API_KEY_FILE)")


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the images of replicas and of their balancer."""
    group = parser.add_argument_group("images")
    group.add_argument("--image", metavar="NAME", help="the image of the replicas, dsv4-serve if absent (DSV4_IMAGE)")
    group.add_argument("--balancer-image", metavar="NAME", help="HAProxy, 3.0 by digest if absent (BALANCER_IMAGE)")


def add_without_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options for a replica of our own that has no weights."""
    from ..bench.options import ACCEPTANCE, START_SECONDS

    [rate] = ACCEPTANCE
    group = parser.add_argument_group("without weights")
    group.add_argument(
        "--without-weights",
        action="store_true",
        help="start a replica of the real size with dummy weights, and stop it",
    )
    group.add_argument(
        "--acceptance",
        type=float,
        nargs="+",
        metavar="R",
        help=f"the share of draft tokens that is accepted at random ({rate}); or one for each of them",
    )
    group.add_argument(
        "--start-timeout", type=seconds, metavar="S", help=f"seconds until it is ready ({START_SECONDS:g})"
    )


def count(text: str) -> int:
    """Return a whole number of at least 1, written in digits; raise ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def port(text: str) -> int:
    """Return a port; raise ArgumentTypeError for anything else."""
    if (number := count(text)) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return number


def seconds(text: str) -> float:
    """Return a time in seconds, above 0; raise ArgumentTypeError for anything else."""
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a valid time; use a number of seconds above 0")
    return number
