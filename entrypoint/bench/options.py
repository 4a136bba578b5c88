"""What `dsv4 bench` is asked for: the measurements that its options make."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UsageError

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


def patience(options: argparse.Namespace) -> float:
    """Return the seconds that a start may take."""
    return options.start_timeout or START_SECONDS


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
