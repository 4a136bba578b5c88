"""The body of `dsv4 bench`: of a replica that runs, or of one of our own without weights."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import results, served_plan
from ..client import endpoint
from ..errors import HostError, NotFound, UsageError
from ..plan import Plan
from ..resolve.select import Selection
from ..supervisor import crash_loop, kernel_cache
from . import load, measure, plot, started
from . import options as asked
from .load import Tokenizer
from .measure import Bench

if TYPE_CHECKING:
    from ...demo.v4_weights import Dims  # with numpy, which comes with vLLM

Say = Callable[[str], None]
Resolved = tuple[Selection, Plan]
Resolve = Callable[[argparse.Namespace, list[str]], Resolved]
_CHOICES = ("profile", "model", "hardware", "tp", "nccl")
_ADDRESS = ("url", "health", "api_key_file")
_OF_OUR_OWN = ("acceptance", "start_timeout")
"""Options that say where a replica is, and those of one without weights."""


def bench(
    options: argparse.Namespace, words: list[str], environ: Mapping[str, str], resolve: Resolve, say: Say
) -> dict[str, Any]:
    """Measure as the options say, and return the receipt as it was written; raise UserError."""
    wanted, environ = asked.load(options), load.program_in(environ)
    _refuse_idle(options, words)
    results.check_writable(Path(options.out), "bench")
    if options.plot:
        _write(Path(options.plot), "a", "")  # fails now rather than when all is measured
    tokenizer = Tokenizer(options.tokenizer) if options.tokenizer else None
    with started.stops_raise():
        if options.without_weights:
            with without_weights(options, words, environ, resolve, say) as replica:
                target = Bench(replica.endpoint, wanted, environ, say, tokenizer)
                path = measure.receipt(target, Path(options.out))
        else:
            where = endpoint.from_options(options, environ)
            path = measure.receipt(Bench(where, wanted, environ, say, tokenizer), Path(options.out))
    receipt = results.read_one(path)
    if options.plot:
        _write(Path(options.plot), "w", plot.svg([receipt]))
    return receipt


@contextlib.contextmanager
def without_weights(
    options: argparse.Namespace, words: list[str], environ: Mapping[str, str], resolve: Resolve, say: Say
) -> Iterator[started.Started]:
    """Serve the chosen plan in its real size without weights, and yield the replica."""
    resolved = selection, _ = resolve(options, words)
    environ = {**measure.by_lot(selection.hardware.get("compute_capability")), **environ}
    serve, weights = plan_without_weights(options, words, environ, resolved)
    say(f"{weights}; the MTP gate and the corruption canary only warn, as random weights pass neither")
    with started.replica(serve, environ, started.scratch(), say, asked.patience(options)) as replica:
        yield replica


def plan_without_weights(
    options: argparse.Namespace,
    words: list[str],
    environ: Mapping[str, str],
    resolved: Resolved,
    sizes: Dims | None = None,
) -> tuple[list[str], str]:
    """
    Write the folder that takes the place of the weights; return the words of `dsv4 serve`, and what the weights are.

    `resolved` is what options and words resolve to. `sizes`, where given, are not the published ones, and have a folder
    of their own: another replica may be reading the other.
    """
    try:
        from . import without_weights as dummy
    except ModuleNotFoundError as error:
        raise NotFound(f"--without-weights needs {error.name}, which comes with vLLM; install vLLM here.") from None

    selection, plan = resolved
    model = selection.model
    layout = dummy.layout_of(model.get("scheme"), model.get("draft_head"), model.name)
    name = f"{model.name}-{crash_loop.fingerprint(sizes)}" if sizes else model.name
    folder = kernel_cache.root(environ) / "without-weights" / name
    rates = dummy.acceptance_rates(options.acceptance or asked.ACCEPTANCE, served_plan.draft_tokens(plan))
    try:
        dummy.write(folder, str(model.get("architecture")), layout, sizes)
    except OSError as error:
        raise HostError(f"{folder}: cannot be written ({error.strerror}); set DSV4_CACHE.") from None
    ours = argparse.Namespace(**{**vars(options), "model": f"{model.name}={folder}"})
    return [*serve_words(ours, words), *dummy.flags(rates)], measure.described(rates, environ)


def serve_words(options: argparse.Namespace, words: Sequence[str]) -> list[str]:
    """Return the words of `dsv4 serve` that make the same plan as these options and vLLM's flags."""
    given = [(name, getattr(options, name)) for name in _CHOICES]
    words_given = [word for name, value in given if value is not None for word in (f"--{name}", str(value))]
    return [*words_given, *(word for name in options.skip for word in ("--skip", name)), *words]


def _refuse_idle(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Raise UsageError for what has no effect: a replica that runs has a plan, one of our own an address already."""
    if options.without_weights:
        if given := _given(options, _ADDRESS):
            raise UsageError(f"--without-weights starts a replica of its own and takes no {given[0]}; leave it out.")
    elif given := [*serve_words(options, words), *_given(options, _OF_OUR_OWN)]:
        raise UsageError(
            f"`dsv4 bench` measures a replica that runs and takes no {given[0]}; start it so, or add --without-weights."
        )


def _given(options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]


def _write(path: Path, mode: str, text: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HostError(f"{path}: cannot be written ({error.strerror}); name another file with --plot.") from None
