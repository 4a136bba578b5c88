"""Measure one replica: every row that is asked for, and the receipt of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import results, text_table
from ..client.endpoint import Endpoint, NoAnswer
from ..errors import ConfigError, UserError
from . import load
from .load import Row, Tokenizer
from .options import Asked
from .started import start_of

Replica = Mapping[str, Any]
LOAD = "vllm bench serve: random prompts, greedy, ignore-eos"
_ROUTING = "VLLM_MOE_ROUTING_SIMULATION_STRATEGY"
BY_LOT = {_ROUTING: "uniform_random"}
"""
Variables with which each token gets experts by lot, all equally likely. Left to dummy weights, 16 requests read at most
49 experts of a layer (2 x H200), by lot 136; a token takes 5.8 and 11.2 ms (half of W4A16 on one H200; vLLM 0.32.0,
2026-11-22).
"""
HEADINGS = ("batch", "input", "output", "output tok/s", "TPOT p50/p99 ms", "TTFT p50/p99 ms", "acceptance")


@dataclass(frozen=True)
class Bench:
    """Who is measured, with what, and where it is said; `environ` names the load generator by DSV4_VLLM."""

    where: Endpoint
    asked: Asked
    environ: Mapping[str, str]
    say: Callable[[str], None]
    tokenizer: Tokenizer | None = None
    """That of the plan where None."""


def rows(bench: Bench, model: str, tokenizer: Tokenizer, keep: Callable[[Row], None]) -> None:
    """Measure every row of a served model and hand it to `keep` at once; raise UserError at the first that fails."""
    for shape in bench.asked.shapes():
        said = f"batch {shape.batch}, {shape.input} tokens in, {shape.output} out"
        bench.say(f"{said}: {shape.requests} requests after {shape.warm_up} that are not counted")
        keep(load.run(shape, bench.where, model, tokenizer, bench.environ))


def receipt(bench: Bench, out: Path) -> Path:
    """
    Measure, write a receipt below `out`, and return its path.

    A failure keeps the rows that were measured before it, and is raised again. Where no health server answers, the
    receipt is without a plan, and a tokenizer has to be named.
    """
    model = bench.where.models()[0]
    replica = _replica(bench)
    tokenizer = bench.tokenizer or tokenizer_of(replica)
    found: list[Row] = []
    weights = weights_of(replica)
    body: dict[str, Any] = {
        "subject": subject(replica, weights),
        "weights": weights,
        "load": LOAD,
        "replica": replica,
        "start": start_of(bench.where.health),
    }
    try:
        rows(bench, model, tokenizer, found.append)
    except UserError as error:
        if found:
            failed = {**body, "rows": [one.to_json() for one in found], "failed": str(error)}
            bench.say(f"kept: {results.write(out, 'bench', failed)}")
        raise
    body["rows"] = [one.to_json() for one in found]
    return results.write(out, "bench", body)


def _replica(bench: Bench) -> Replica:
    if bench.where.health is None:
        bench.say("plan, versions and machine are skipped: no health server is named (--health)")
        return {}
    try:
        return results.of_replica(bench.where.health, bench.where.key)
    except NoAnswer as error:
        bench.say(f"plan, versions and machine are skipped: {error}")
        return {}


def tokenizer_of(replica: Replica) -> Tokenizer:
    """Return the tokenizer that the plan names; raise ConfigError without a plan."""
    argv = list(replica.get("argv", ()))
    if len(argv) < 3 or argv[2].startswith("-"):
        raise ConfigError(
            "The plan of this replica is not known, so neither is its tokenizer; name it with --tokenizer."
        )
    flags = flags_of(argv)
    return Tokenizer(flags.get("--tokenizer", argv[2]), flags.get("--tokenizer-mode", "auto"))


def weights_of(replica: Replica) -> str:
    """Return what a receipt says of the weights, by the plan: those of the checkpoint, or dummy ones; never a guess."""
    flags = flags_of(replica.get("argv", ()))
    if not flags:
        return "unknown"
    if flags.get("--load-format") != "dummy":
        return "as served"
    rates = json.loads(flags.get("--speculative-config", "{}")).get("synthetic_acceptance_rates") or []
    return described(rates, replica.get("env", {}))


def by_lot(compute_capability: str) -> dict[str, str]:
    """
    Return BY_LOT, and nothing on SM 10.x.

    There vLLM 0.32.0 would choose experts' kernels for it that route by themselves (trtllm_nvfp4_moe.py).
    """
    return {} if compute_capability.startswith("10.") else BY_LOT


def described(rates: Sequence[float], env: Mapping[str, str]) -> str:
    """Return the words for dummy weights whose draft tokens are accepted at these rates, under these variables."""
    parts = ["dummy weights"]
    if rates:
        parts.append(f"synthetic acceptance {', '.join(f'{rate:g}' for rate in rates)}")
    if routing := env.get(_ROUTING):
        parts.append(f"experts {routing}")
    return ", ".join(parts)


def flags_of(argv: Sequence[str]) -> dict[str, str]:
    """Return the flags of a command with their values as one text; `set` for a switch."""
    found: dict[str, str] = {}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name = word
            found[name] = "set"
        elif name:
            found[name] = word if found[name] == "set" else f"{found[name]} {word}"
    return found


def subject(replica: Replica, weights: str) -> str:
    """Return the name of what was measured: model, hardware, tensor parallel size, profile."""
    choices = replica.get("choices", {})
    size = flags_of(replica.get("argv", ())).get("--tensor-parallel-size", "1")
    names = [str(choices.get(name, "")) for name in ("model-name", "hardware", "profile")]
    parts = [*names[:2], f"tp{size}", *names[2:], "dummy" if weights.startswith("dummy") else ""]
    return "-".join(filter(None, parts)) if choices else "unknown replica"


def text(receipt: Mapping[str, Any]) -> str:
    """Return a receipt for people: what was measured, the rows as a table, and where it is kept."""
    phases = receipt["start"].get("phases", {})
    start = ", ".join(f"{name} {seconds:.0f}" for name, seconds in phases.items() if seconds >= 0.5)
    lines = [
        f"{receipt['subject']} ({receipt['weights']})",
        *([f"start, s: {start}; caches {receipt['start']['caches']}"] if start else []),
        table(receipt["rows"]),
        f"receipt: {receipt['file']}",
    ]
    return "\n".join(lines)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    return text_table.table([HEADINGS, *map(cells, found)])


def cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one row's figures as text, in the order of HEADINGS."""
    accepted = one["acceptance"]
    return (
        str(one["batch"]),
        str(one["input"]),
        str(one["output"]),
        f"{one['output_tokens_per_second']:.2f}",
        f"{one['tpot_p50']:.2f} / {one['tpot_p99']:.2f}",
        f"{one['ttft_p50']:.0f} / {one['ttft_p99']:.0f}",
        "nothing drafted" if accepted is None else f"{accepted:.1%}",
    )
