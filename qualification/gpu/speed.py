"""
How fast several ways to serve are, at full size without weights: each is started, measured, stopped, and kept.

    python -m qualification.gpu.speed --variants FILE.toml --gpus 0,1 --out DIR --deadline 540

variants.py says what a FILE.toml has. Experts are routed at random, as by `dsv4 bench --without-weights`, unless `env`
says otherwise. DIR/NAME.json is written after every row.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.bench import command, event_loop, load, measure, other_engine, routing, sweep
from dsv4_serve.entrypoint.bench import options as benches
from dsv4_serve.entrypoint.bench.load import Row, Tokenizer
from dsv4_serve.entrypoint.bench.options import LoadMatrix
from dsv4_serve.entrypoint.bench.without_weights import SIZES, Published
from dsv4_serve.entrypoint.cli import log
from dsv4_serve.entrypoint.cli import parser as options
from dsv4_serve.entrypoint.cli.request import resolved as resolve
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.local_replica import Started
from dsv4_serve.entrypoint.errors import UserError
from dsv4_serve.entrypoint.machine.machine import read_machine
from dsv4_serve.entrypoint.plan import Plan, plain
from dsv4_serve.entrypoint.resolve.select import Selection
from dsv4_serve.entrypoint.supervisor import kernel_cache, provenance
from qualification.gpu import beside, pair, readyz, returning, sglang, trace, variants, warm_generator
from qualification.gpu.stock import stock
from qualification.gpu.variants import OURS, SGLANG

RESERVE = 25  # seconds before the deadline for the replica to end and for files to be written
LEAST = 75  # seconds without which a variant is not begun


@dataclass
class Result:
    """One variant: what it was, how its start went, what was measured, and why it ended early."""

    variant: dict[str, Any]
    ready: float | None = None
    start: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    kernels: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    swept: dict[str, Any] = field(default_factory=dict)
    readyz: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    returning: list[dict[str, Any]] = field(default_factory=list)
    failed: str = ""
    weights: str = ""
    replica: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    tokens_a_step: float | None = None
    """What an engine without a plan says of itself, and SGLang of all rows together."""
    hardware: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """Where an engine without a plan was measured, as `replica` has it."""

    def line(self) -> str:
        name, end = f"{self.variant['name']:20}", [f"FAILED: {self.failed}"] if self.failed else []
        if self.ready is None:
            return " | ".join([name, *end])
        spent = ", ".join(f"{phase} {s:.0f}" for phase, s in self.start.get("phases", {}).items() if s >= 0.5)
        cells = [
            f"b{row['batch']} {row['output_tokens_per_second']:.1f} tok/s TPOT {row['tpot_p50']:.2f} TTFT"
            f" {row['ttft_p50']:.0f} acc {row['acceptance'] or 0:.2f}"
            + (f" in {row['input']}" if row["input"] != self.variant["inputs"][0] else "")
            for row in self.rows
        ]
        swept = [f"swept {self.swept['seconds']:.0f} s"] if self.swept else []
        return " | ".join([f"{name} ready {self.ready:.0f} s ({spent})", *swept, *cells, *end])


@dataclass(frozen=True)
class Planned:
    """The words of `dsv4 serve`, its variables, what the weights are, what is selected, its plan, its kernels' folder."""

    serve: list[str]
    environ: dict[str, str]
    weights: str
    selection: Selection
    plan: Plan
    kernels: Path


def resolved(variant: Mapping[str, Any]) -> tuple[argparse.Namespace, list[str], Selection, Plan]:
    """Return the options and flags of a variant, what they select, and the plan."""
    argv = ["bench", "--without-weights", "--model", variant["model"], "--profile", variant["profile"]]
    argv += ["--tp", str(variant["tp"]), "--acceptance", *map(str, variant["acceptance"])]
    if variant["share"] > 1:
        argv += ["--skip", "weights", "--skip", "tensor-parallel-size"]  # the file's are those of the whole model
    argv += [word for name in variant["skip"] for word in ("--skip", name)]
    given, flags = options.parse(argv)
    flags += variant["flags"] if variant["engine"] == OURS else []
    return given, flags, *resolve(given, flags)


def planned(variant: Mapping[str, Any], environ: Mapping[str, str]) -> Planned:
    """Write the folder without weights, and return how it is served."""
    given, flags, chosen, plan = resolved(variant)
    sizes = share(SIZES[str(chosen.model.get("architecture"))], variant["share"]) if variant["share"] > 1 else None
    environ = {**routing.variables(chosen.hardware.get("compute_capability")), **environ}
    if variant["engine"] == SGLANG:
        environ[routing.VARIABLE] = routing.SPREAD  # SGLANG_SIMULATE_UNIFORM_EXPERTS draws likewise, whatever vLLM has
    own, weights = command.dummy(chosen, plan, benches.serve_options(given, flags), environ, sizes)
    serve = own.argv()
    if sizes:
        weights += f", one GPU's share of {variant['share']}"
    return Planned(serve, environ, weights, chosen, plan, kernel_cache.installed_folder(plan, environ))


def share(sizes: Published, ways: int) -> Published:
    """Return what one of so many GPUs holds, but for what each holds whole: heads, experts and vocabulary are split."""
    parts = {name: getattr(sizes, name) // ways for name in ("heads", "o_groups", "inter", "vocab")}
    return replace(sizes, **parts)


def starting(
    variant: dict[str, Any], how: Planned, out: Path, patience: float
) -> tuple[AbstractContextManager[Started], Tokenizer]:
    """What starts the variant, and the tokenizer to measure it with."""
    serve, environ = how.serve, how.environ
    folder = serve[serve.index("--model") + 1].partition("=")[2]
    extra = trace.flags(out / "trace") if variant["trace"] or variant["prompt_trace"] else []
    if variant["replicas"] > 1:
        devices = pair.groups(environ["CUDA_VISIBLE_DEVICES"], variant["tp"])
        return pair.served(devices, serve, environ, out, patience), Tokenizer(folder, "deepseek_v4")
    if variant["engine"] == OURS:
        return local_replica.replica([*serve, *extra], environ, out, patience), Tokenizer(folder, "deepseek_v4")
    name = "--speculative-config.synthetic_acceptance_rates"
    rates = json.loads(serve[serve.index(name) + 1]) if name in serve else []
    method = str(plain(how.plan.flags).get("speculative-config.method", ""))
    if variant["engine"] == SGLANG:
        draft = sglang.drafting(method, len(rates))
        argv = sglang.command(folder, variant["tp"], draft, variant["flags"])
        return stock(argv, environ | sglang.variables(rates), out, say, patience), Tokenizer(folder)
    if variant["cache"] == "shared":
        environ = {**kernel_cache.variables(how.kernels), **environ}
    flags = [*variant["flags"], *extra, "--tensor-parallel-size", str(variant["tp"]), "--load-format", "dummy"]
    synthetic = {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": rates}
    draft_config = {"method": method, "num_speculative_tokens": len(rates), **synthetic}
    if rates and "--speculative-config" not in flags:
        flags += ["--speculative-config", json.dumps(draft_config)]
    return stock([environ["DSV4_VLLM"], "serve", folder, *flags], environ, out, say, patience), Tokenizer(folder)


def measured(variant: dict[str, Any], environ: dict[str, str], out: Path, patience: float, generator: str) -> Result:
    """Start, measure with the load generator, stop; what was measured is in the result and in its file in any case."""
    result = Result(variant)
    began = time.monotonic()

    def keep(row: Row) -> None:
        result.rows.append(row.to_json())
        write(out, result)

    try:
        if variant["cache"] == "cold":
            environ = {name: value for name, value in environ.items() if name not in kernel_cache.VARIABLES}
            environ["DSV4_CACHE"] = str(out / "cache")
        how = planned(variant, environ)
        result.weights = how.weights
        context, tokenizer = starting(variant, how, out, patience)
        with context as running:
            result.ready = round(time.monotonic() - began, 1)
            where = running.endpoint
            result.start = dict(running.start)
            if where.health:
                result.replica = where.plan().to_json()
            else:
                result.version = other_engine.version(where)
                result.hardware = str(plain(how.plan.choices).get("hardware", ""))
                result.machine = provenance.hardware(read_machine(environ))
            if variant["sweep"]:
                result.swept = asdict(sweep.run(where, sweep.lengths(how.plan)))
            write(out, result)
            for number, rows in enumerate([variant, *variant["also"]]):
                batches, inputs = tuple(rows["batches"]), tuple(rows["inputs"])
                requests, history = (rows.get(name, variant[name]) for name in ("requests", "history"))
                seed = 100 * number  # other prompts in each group of rows, which no prefix cache holds
                matrix = LoadMatrix(batches, inputs, variant["output"], requests, seed, history=history)
                loads = environ | {"DSV4_VLLM": generator}
                for row in measure.rows(where, where.models()[0].id, matrix, tokenizer, loads):
                    keep(row)
                result.tokens_a_step = sglang.tokens_a_step(where) if variant["engine"] == SGLANG else None
            other_loads(variant, where, result, lambda: write(out, result))
            for kind, prefix in (("trace", ""), ("prompt_trace", "prompt ")):
                for size in variant[kind]:
                    profiled = trace.PROFILERS[kind, variant["engine"] == SGLANG]
                    result.kernels[f"{prefix}{size}"] = profiled(running, size, tokenizer, environ, out / "trace")
    except (UserError, OSError, LookupError, ValueError, AssertionError, httpx.HTTPError) as error:
        result.failed = " ".join(f"{type(error).__name__}: {error}".split())[:600]
    write(out, result)
    return result


def other_loads(variant: Mapping[str, Any], where: Endpoint, result: Result, keep: Callable[[], None]) -> None:
    """Measure what the variant asks for: `/readyz` beside many streams, short prompts beside a long one, conversations."""
    vocab = SIZES["deepseek-v4-flash"].vocab // variant["share"]
    if variant["readyz"] and where.health:
        pid = procfs.listener(urlsplit(where.health).port or 0)
        result.readyz = event_loop.run(readyz.measure(where.url, where.health, pid or 0))
        say(f"/readyz: {result.readyz}")
    if variant["beside"]:
        result.beside = event_loop.run(beside.measure(where.url, where.models()[0].id, variant["beside"], vocab))
        say(f"beside: {result.beside}")
    for tokens, count in variant["returning"]:
        found = event_loop.run(returning.measure(where.url, where.models()[0].id, tokens, count, vocab))
        result.returning.append(found)
        say(f"returning: {tokens} {found['p50']}")
        keep()


def write(out: Path, result: Result) -> None:
    out.with_suffix(".json").write_text(json.dumps(asdict(result), indent=2) + "\n")


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def stop(number: int, _frame: Any) -> None:
    raise local_replica.Stopped(number)


def main() -> int:
    parser = argparse.ArgumentParser(description="Several ways to serve, measured one after the other.")
    parser.add_argument("--variants", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="variants; all of the file without it")
    parser.add_argument("--gpus", default="0,1", help="CUDA_VISIBLE_DEVICES")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deadline", type=float, default=540, help="seconds, for everything")
    options = parser.parse_args()
    until = time.monotonic() + options.deadline - RESERVE
    os.environ["CUDA_VISIBLE_DEVICES"] = options.gpus
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.resolve()
    results = []
    before = dict(os.environ)
    log.to_stderr()
    signal.signal(signal.SIGALRM, stop)
    with warm_generator.running() as generator:
        for variant in variants.read(options.variants, len(options.gpus.split(",")), options.only):
            if (left := until - time.monotonic()) < LEAST:
                results.append(Result(variant, failed=f"not begun, {left:.0f} s were left"))
                continue
            left = min(left, variant["limit"])
            print(f"{variant['name']}: {left:.0f} s left", flush=True)
            os.environ.update({name: str(value) for name, value in variant["env"].items()})
            signal.alarm(int(left))
            environ, folder = load.program_in(os.environ), options.out / variant["name"]
            results.append(measured(variant, environ, folder, left, generator))
            signal.alarm(0)
            print(results[-1].line(), flush=True)
            os.environ.clear()
            os.environ.update(before)
    print("\n" + "\n".join(result.line() for result in results), flush=True)
    return 0 if all(result.rows for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
