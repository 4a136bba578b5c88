"""What `dsv4 bench` is asked for: its options, and the measurements that they make."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from .. import results
from ..argument_types import seconds
from ..client import endpoint
from ..errors import UsageError

BENCH = "output tokens per second and latencies of a running replica, by `vllm bench serve`, with a receipt"
COMPARE = "two receipts of `dsv4 bench`: ratios, and what differs between the replicas"
WARM = "start a plan until it is ready and stop it: compiled kernels stay in the cache (DSV4_CACHE)"
START_SECONDS = 3600.0
ACCEPTANCE = (0.89,)


@dataclass(frozen=True)
class Shape:
    """What is asked for: `batch` requests at once, of `input` random tokens, with `output` tokens each."""

    batch: int
    input: int = 256
    output: int = 256
    requests: int = 4
    """Requests that are counted, in all."""
    warm_up: int = 1
    """Requests before them that are not."""
    seed: int = 0


@dataclass(frozen=True)
class Asked:
    """Batch sizes (requests at once) and prompt lengths to measure; each pair of them is one row."""

    batches: tuple[int, ...] = (1, 4, 16)
    inputs: tuple[int, ...] = (256,)
    output: int = 256
    requests: int = 4
    """Requests for each place in a batch."""
    seed: int = 0

    def shapes(self) -> Iterator[Shape]:
        """Yield every measurement; each has prompts of its own, which no prefix cache holds."""
        pairs = [(length, batch) for length in self.inputs for batch in self.batches]
        for number, (length, batch) in enumerate(pairs):
            yield Shape(batch, length, self.output, self.requests * batch, warm_up=batch, seed=self.seed + number)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench` beside those that choose a plan."""
    endpoint.add_options(parser)
    add_load(parser)
    parser.add_argument("--tokenizer", metavar="T", help="a folder or repository (that of the replica's plan)")
    parser.add_argument("--out", metavar="FOLDER", default=results.FOLDER, help="for the receipt (%(default)s)")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw throughput and latency per batch size")
    add_without_weights(parser)


def add_load(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is measured."""
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="requests at once (1 4 16)"
    )
    parser.add_argument("--input", type=int, default=256, metavar="N", help="tokens of a prompt (%(default)s)")
    parser.add_argument("--output", type=int, default=256, metavar="N", help="tokens of an answer (%(default)s)")
    parser.add_argument(
        "--context",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="prompt and answer together, in place of --input",
    )
    parser.add_argument(
        "--requests-per-batch",
        type=int,
        default=4,
        metavar="R",
        help="requests for each place in a batch (%(default)s)",
    )


def add_without_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options for a replica of our own that has no weights."""
    parser.add_argument(
        "--without-weights",
        action="store_true",
        help="start a replica of the real size with dummy weights, and stop it",
    )
    parser.add_argument(
        "--acceptance",
        type=float,
        nargs="+",
        metavar="R",
        help="without weights: the share of draft tokens that is accepted, by lot (0.89); or one for each of them",
    )
    parser.add_argument(
        "--start-timeout",
        type=seconds,
        metavar="S",
        help=f"seconds until it is ready ({START_SECONDS:g})",
    )


def patience(options: argparse.Namespace) -> float:
    """Return the seconds that a start may take."""
    return options.start_timeout or START_SECONDS


def add_warm(parser: argparse.ArgumentParser) -> None:
    """Add the options of `warm` beside those that choose a plan."""
    add_without_weights(parser)
    parser.add_argument("--again", action="store_true", help="start a second time, to see what a warm start saves")


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench compare`."""
    parser.add_argument("receipts", nargs=2, metavar="RECEIPT.json")


def load(options: argparse.Namespace) -> Asked:
    """Return what the options ask for; raise UsageError for a number that cannot be."""
    inputs = [context - options.output for context in options.context] or [options.input]
    numbers = {
        "--batch": options.batch,
        "--input": [options.input],
        "--output": [options.output],
        "--requests-per-batch": [options.requests_per_batch],
    }
    for name, values in numbers.items():
        if min(values) < 1:
            raise UsageError(f"{name} {min(values)}: has to be 1 or more.")
    if min(inputs) < 1:
        raise UsageError(f"--context {min(options.context)}: has to hold more than the {options.output} of --output.")
    return Asked(tuple(options.batch), tuple(inputs), options.output, options.requests_per_batch)
