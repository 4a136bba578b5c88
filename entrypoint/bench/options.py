"""Turn the options of `dsv4 bench` and `dsv4 warm` into requests."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ConfigError, UsageError
from ..secret import without_password
from . import goodput

START_SECONDS = 3600.0
ACCEPTANCE = (0.89,)
"""The share of draft tokens that W4A16's card names for its own workload; with random prompts it names 0.70."""
ROUNDS = 2
"""How often two engines are measured, each in its turn."""
FULL = "full"
"""The word for a prompt as long as the served context allows, less ADDED."""
ADDED = 8
"""Tokens that a server may add to a prompt, such as BOS."""
_CHOICES = ("profile", "model", "hardware", "tp", "nccl")
_ADDRESS = ("url", "health", "api_key_file")
_WITHOUT_WEIGHTS = ("acceptance", "start_timeout")
"""Options that locate a replica, and options for one without weights."""


@dataclass(frozen=True)
class LoadShape:
    """One measurement: `batch` concurrent requests of `input` random tokens, with `output` tokens each."""

    batch: int
    input: int = 256
    output: int = 256
    requests: int = 4
    """Requests that are measured."""
    warm_up: int = 1
    """Requests before them that are not measured."""
    seed: int = 0
    limits: goodput.Limits = field(default_factory=dict)
    """What a request has to keep to be counted as good, in ms."""
    history: int = 0
    """Tokens before `input` that the requests of one conversation share; there are `batch` conversations."""
    round: int = 1
    """How often the same batch and lengths were measured, this time included."""


@dataclass(frozen=True)
class LoadMatrix:
    """Batch sizes (concurrent requests) and prompt lengths to measure; each pair of them is one row."""

    batches: tuple[int, ...] = (1, 4, 16)
    inputs: tuple[int, ...] = (256,)
    output: int = 256
    requests: int = 4
    """Requests for each place in a batch."""
    seed: int = 0
    limits: goodput.Limits = field(default_factory=dict)
    history: int = 0
    """Tokens that each request for one place in a batch begins with."""
    rounds: int = 1
    """How often all of it is measured."""
    whole_context: bool = False
    """Whether to measure prompts too that leave `output` tokens of the served context."""

    def shapes(self) -> Iterator[LoadShape]:
        """Yield every measurement; each has new prompts, which no prefix cache holds."""
        rounds = range(1, self.rounds + 1)
        cells = [(turn, length, batch) for turn in rounds for length in self.inputs for batch in self.batches]
        for number, (turn, length, batch) in enumerate(cells):
            requests, seed = self.requests * batch, self.seed + number
            yield LoadShape(batch, length, self.output, requests, batch, seed, self.limits, self.history, turn)

    def within(self, context: int | None, url: str) -> LoadMatrix:
        """Return the matrix with the lengths for a served context; raise ConfigError where that is unknown or short."""
        if not self.whole_context:
            return self
        if context is None:
            raise ConfigError(
                f"--context full: {without_password(url)} does not say its context; write the number of tokens."
            )
        if (length := context - self.output - self.history - ADDED) < 1:
            raise ConfigError(f"--context full: the served context has {context} tokens; request shorter answers.")
        return replace(self, inputs=(*self.inputs, length), whole_context=False)


@dataclass(frozen=True)
class BenchRequest:
    """What is measured, with which tokenizer (that of the replica's plan where None), and where it is written."""

    matrix: LoadMatrix
    out: Path
    plot: Path | None = None
    tokenizer: str | None = None
    share: Path | None = None
    """A file for what can be shared of the result."""
    engine_url: str | None = None
    engine_key_file: str | None = None
    engine_model: str | None = None
    engine_hardware: str | None = None
    """Another engine to measure in turn: its address, the file of its key, the name that it serves, its hardware."""


@dataclass(frozen=True)
class ServeOptions:
    """How a replica of our own is served: the choices of `dsv4 serve` by name, checks to skip, and vLLM's flags."""

    choices: Mapping[str, str]
    skip: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    start_seconds: float = START_SECONDS
    """The longest time that its start may take."""
    acceptance: tuple[float, ...] = ACCEPTANCE
    """Shares of draft tokens that are accepted without weights: one, or one for each draft token of a step."""

    def argv(self) -> list[str]:
        """Return the arguments of `dsv4 serve`."""
        choices = [argument for name, value in self.choices.items() for argument in (f"--{name}", value)]
        return [*choices, *(argument for name in self.skip for argument in ("--skip", name)), *self.flags]


def bench_request(options: argparse.Namespace) -> BenchRequest:
    """Return the request that the options of `bench` make; raise UsageError for an impossible number."""
    plot = Path(options.plot) if options.plot else None
    share = Path(options.share) if options.share else None
    engine = (options.engine_url, options.engine_key_file, options.engine_model, options.engine_hardware)
    of_engine = ("engine_key_file", "engine_model", "engine_hardware")
    if not options.engine_url and (given := _given(options, of_engine)):
        raise UsageError(f"{given[0]} is about another engine; name its address with --engine-url.")
    return BenchRequest(_matrix(options), options.out, plot, options.tokenizer, share, *engine)


def _matrix(options: argparse.Namespace) -> LoadMatrix:
    taken = options.output + options.history
    inputs = [int(context) - taken for context in options.context if context != FULL]
    if not options.context:
        inputs = [options.input]
    numbers = {
        "--batch": options.batch,
        "--input": [options.input],
        "--output": [options.output],
        "--requests-per-batch": [options.requests_per_batch],
        "--rounds": [1 if options.rounds is None else options.rounds],
    }
    for name, values in numbers.items():
        if min(values) < 1:
            raise UsageError(f"{name} {min(values)}: must be 1 or more.")
    if min(inputs, default=1) < 1:
        raise UsageError(
            f"--context {min(inputs) + taken}: must be more than the {taken} tokens of --output"
            f"{' and --history' if options.history else ''}."
        )
    if options.history < 0:
        raise UsageError(f"--history {options.history}: must be 0 or more.")
    if options.history and options.requests_per_batch == 1:
        raise UsageError("--history needs --requests-per-batch 2 or more, so that a history is sent again.")
    if options.history and options.share:
        raise UsageError("--share does not take results with --history; leave one of them out.")
    limits = goodput.limits(options.goodput)
    if not 0 <= options.seed < 1 << 32:
        raise UsageError(f"--seed {options.seed}: must be 0 to {(1 << 32) - 1}.")
    load = (tuple(options.batch), tuple(inputs), options.output, options.requests_per_batch, options.seed)
    rounds = options.rounds or (ROUNDS if options.engine_url else 1)
    return LoadMatrix(*load, limits, options.history, rounds, FULL in options.context)


def serve_options(options: argparse.Namespace, flags: Sequence[str]) -> ServeOptions:
    """Return how the options of `bench` or `warm` and vLLM's flags serve a replica of our own."""
    given = {name: getattr(options, name) for name in _CHOICES}
    return ServeOptions(
        {name: str(value) for name, value in given.items() if value is not None},
        tuple(options.skip),
        tuple(flags),
        options.start_timeout or START_SECONDS,
        tuple(options.acceptance or ACCEPTANCE),
    )


def check_bench(options: argparse.Namespace, flags: Sequence[str]) -> None:
    """Raise UsageError for options without effect: a running replica has its plan, one of our own its address."""
    if options.without_weights:
        if given := _given(options, _ADDRESS):
            raise UsageError(f"--without-weights starts its own replica and does not take {given[0]}; leave it out.")
    elif given := [*serve_options(options, flags).argv(), *_given(options, _WITHOUT_WEIGHTS)]:
        raise UsageError(
            f"`dsv4 bench` measures a running replica and does not take {given[0]}; start the replica with it,"
            " or add --without-weights."
        )


def check_warm(options: argparse.Namespace) -> None:
    """Raise UsageError for a rate of acceptance where there are weights."""
    if options.acceptance and not options.without_weights:
        raise UsageError("--acceptance is a synthetic rate, for a replica without weights; add --without-weights.")


def _given(options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
