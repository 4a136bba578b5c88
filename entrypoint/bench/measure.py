"""Measure every row of a matrix on a replica, or on several engines in turn, and write the results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import results, shared_result, text_table
from ..client.endpoint import Endpoint
from ..client.errors import RequestFailed
from ..client.local_replica import start_of
from ..errors import ConfigError, UserError
from ..parallel import parallel
from ..plan import draft_tokens
from ..replica_description import flag_values
from . import goodput, load, rounds, routing
from .load import LoadFailed, Row, Tokenizer
from .options import ADDED, LoadMatrix, LoadShape

log = logging.getLogger(__name__)

Replica = Mapping[str, Any]
LOAD = "vllm bench serve: random prompts, greedy, ignore-eos"
_HEADINGS = ("batch", "input", "output", "output tok/s", "TPOT p50/p99 ms", "TTFT p50/p99 ms", "acceptance")
_SHOWN = 0.01
"""The share of prompt tokens from the prefix cache from which on a table has it."""
_WITHIN, _CACHED = "within limits", "prefix cache"


@dataclass(frozen=True)
class Subject:
    """What is measured: its endpoint, the model's served name, its context, and what the result says of it."""

    endpoint: Endpoint
    model: str
    context: int | None
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the result."""
        return str(self.about["subject"])


def rows(
    endpoint: Endpoint,
    model: str,
    matrix: LoadMatrix,
    tokenizer: Tokenizer,
    environ: Mapping[str, str],
) -> Iterator[Row]:
    """Measure a served model and yield each row at once; raise UserError at the first that fails."""
    for shape in matrix.shapes():
        _announce(shape)
        yield load.run(shape, endpoint, model, tokenizer, environ)


def measure(
    subjects: Sequence[Subject], matrix: LoadMatrix, environ: Mapping[str, str], tokenizer: Tokenizer, out: Path
) -> list[Path]:
    """
    Measure the subjects in turn, write a result of each below `out`, and return the paths.

    Every row of one is followed by the same row of the next, with the same prompts; which one begins changes from row
    to row. `environ` names the load generator by DSV4_VLLM. After a failure or a signal the rows measured so far are
    kept, and it is raised again.
    """
    measured: list[list[Row]] = [[] for _ in subjects]
    began = datetime.now(UTC).isoformat(timespec="seconds")
    turns = {"interleaved": {"with": [one.name for one in subjects], "rounds": matrix.rounds, "began": began}}
    common = {**_load(matrix), **(turns if len(subjects) > 1 else {})}

    def write(failed: Mapping[str, str]) -> list[Path]:
        bodies = [
            {**one.about, **common, "rows": [row.to_json() for row in got]}
            for one, got in zip(subjects, measured, strict=True)
            if got
        ]
        return [results.write(out, "bench", {**body, **failed}) for body in bodies]

    order = list(range(len(subjects)))
    try:
        for shape in matrix.shapes():
            for number in order:
                _announce(shape, subjects[number].name if len(subjects) > 1 else "")
                measured[number].append(_one(subjects, number, shape, tokenizer, environ))
            order.reverse()
    except UserError as error:
        if kept := write({"failed": str(error)}):
            log.info(f"the rows measured so far are kept in {' and '.join(map(str, kept))}")
        raise
    return write({})


def _one(
    subjects: Sequence[Subject], number: int, shape: LoadShape, tokenizer: Tokenizer, environ: Mapping[str, str]
) -> Row:
    subject = subjects[number]
    try:
        return load.run(shape, subject.endpoint, subject.model, tokenizer, environ)
    except LoadFailed as error:
        if len(subjects) == 1:
            raise
        raise LoadFailed(f"{subject.name} ({subject.endpoint.url}): {error}") from None


def _announce(shape: LoadShape, name: str = "") -> None:
    history = f"{shape.history} tokens of history and " if shape.history else ""
    tokens = f"batch {shape.batch}, {history}{shape.input} tokens in, {shape.output} out"
    log.info(
        f"{f'{name}: ' if name else ''}{tokens}: {shape.requests} requests after {shape.warm_up} for warm-up"
        f"{f', round {shape.round}' if shape.round > 1 else ''}"
    )


def _load(matrix: LoadMatrix) -> dict[str, Any]:
    limits = {"goodput": dict(matrix.limits)} if matrix.limits else {}
    return {"load": LOAD, "seed": matrix.seed, **limits}


def replica_subject(endpoint: Endpoint) -> Subject:
    """Return a replica as a subject; without a health server the result has no plan."""
    served = endpoint.models()[0]
    replica = _replica(endpoint)
    weights = weights_of(replica)
    about = {
        "subject": subject(replica, weights),
        "weights": weights,
        "digests": digests(replica),
        "replica": replica,
        "start": start_of(endpoint.health),
    }
    return Subject(endpoint, served.id, served.max_model_len, about)


def digests(replica: Replica) -> dict[str, str]:
    """Return what a result is bound to: hashes of plan and patches, and the driver; empty without a plan."""
    if not replica.get("settings"):
        return {}
    driver = str((replica.get("machine") or {}).get("driver", ""))
    found = {"plan": shared_result.digest(replica), "series": shared_result.series_digest(replica), "driver": driver}
    return {name: value for name, value in found.items() if value}


def _replica(endpoint: Endpoint) -> Replica:
    if endpoint.health is None:
        log.info("plan, versions and machine are skipped: no health server is named (--health)")
        return {}
    try:
        return endpoint.plan().to_json()
    except RequestFailed as error:
        log.info(f"plan, versions and machine are skipped: {error}")
        return {}


def tokenizer_of(replica: Replica) -> Tokenizer:
    """Return the tokenizer that the plan names; raise ConfigError without a plan."""
    flags = flag_values(replica)
    if "model" not in flags:
        raise ConfigError(
            "The plan of this replica, and so its tokenizer, is unknown; name the tokenizer with --tokenizer."
        )
    return Tokenizer(flags.get("tokenizer") or flags["model"], flags.get("tokenizer-mode") or "auto")


def weights_of(replica: Replica) -> str:
    """Return the description of the weights in a result, by the plan: as served, dummy, or unknown."""
    flags = flag_values(replica)
    if not flags:
        return "unknown"
    if flags.get("load-format") != "dummy":
        return "as served"
    rates = flags.get("speculative-config.synthetic_acceptance_rates") if draft_tokens(flags) else None
    return described(rates or (), replica.get("env", {}))


def described(rates: Sequence[float], env: Mapping[str, str]) -> str:
    """Describe dummy weights whose draft tokens are accepted at these rates, with these variables."""
    parts = ["dummy weights"]
    if rates:
        parts.append(f"synthetic acceptance {', '.join(f'{rate:g}' for rate in rates)}")
    if strategy := env.get(routing.VARIABLE):
        parts.append(f"experts {strategy}")
    return ", ".join(parts)


def subject(replica: Replica, weights: str) -> str:
    """Return the name of what was measured: model, hardware, shape, profile."""
    choices = replica.get("choices", {})
    shape = parallel(flag_values(replica))
    names = [str(choices.get(name, "")) for name in ("model-name", "hardware", "profile")]
    parts = [*names[:2], shape.name, *names[2:], "dummy" if weights.startswith("dummy") else ""]
    return "-".join(filter(None, parts)) if choices else "unknown replica"


def text(result: Mapping[str, Any]) -> str:
    """Return a result for people: what was measured, the rows as a table, and its file."""
    phases = result["start"].get("phases", {})
    start = ", ".join(f"{name} {seconds:.0f}" for name, seconds in phases.items() if seconds >= 0.5)
    lines = [
        f"{result['subject']} ({result['weights']})",
        *([f"hardware: {result['hardware']}"] if result.get("hardware") else []),
        *([f"start, s: {start}; caches {result['start']['caches']}"] if start else []),
        table(result["rows"]),
        *miscounted(result["rows"]),
        *([goodput.summary(rounds.means(result["rows"]), result["goodput"])] if result.get("goodput") else []),
        f"result: {result['file']}",
    ]
    return "\n".join(lines)


def miscounted(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each shape whose tokens the server counted otherwise, by more than 1 % and ADDED."""
    for row in rounds.means([row for row in rows if row.get("counted")]):
        requested = [row["input"] + row.get("history", 0), row["output"]]
        counted = [tokens / row["requests"] for tokens in row["counted"]]
        if any(abs(had - want) > max(want / 100, ADDED) for had, want in zip(counted, requested, strict=True)):
            yield (
                f"At batch {row['batch']} with {prompt(row)} tokens in, the server counted {counted[0]:,.1f} tokens a"
                f" prompt and {counted[1]:,.1f} an answer."
            )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    return text_table.table(lines(rows))


def lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """
    Return the headings, and the figures of each row as text, means where it was measured in several rounds.

    The share within limits only where one was measured, that of prompts from the prefix cache only from 1 % on.
    """
    rows = rounds.means(rows)
    more: dict[str, Callable[[Mapping[str, Any]], str]] = {}
    if any((row.get("cached_share") or 0) >= _SHOWN for row in rows):
        more[_CACHED] = lambda row: "-" if row.get("cached_share") is None else f"{row['cached_share']:.1%}"
    if any(row.get("good_share") is not None for row in rows):
        more[_WITHIN] = goodput.cell
    return [(*_HEADINGS, *more), *((*_cells(row), *(cell(row) for cell in more.values())) for row in rows)]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    accepted = row["acceptance"]
    return (
        str(row["batch"]),
        prompt(row),
        str(row["output"]),
        f"{row['output_tokens_per_second']:.2f}",
        f"{row['tpot_p50']:.2f} / {row['tpot_p99']:.2f}",
        f"{row['ttft_p50']:.0f} / {row['ttft_p99']:.0f}",
        "nothing drafted" if accepted is None else f"{accepted:.1%}{_by_position(row)}",
    )


def prompt(row: Mapping[str, Any]) -> str:
    """Return the tokens of a row's prompts as text: `16384 + 256` with a history."""
    return f"{row['history']} + {row['input']}" if row.get("history") else str(row["input"])


def _by_position(row: Mapping[str, Any]) -> str:
    """Return the shares of a draft of several tokens, as text; older results have none."""
    shares = row.get("by_position", ())
    return f" ({', '.join(f'{share:.0%}' for share in shares)})" if len(shares) > 1 else ""
