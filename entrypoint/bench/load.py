"""Run one measurement with `vllm bench serve`, and read the figures that it saved."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..client import counters, http
from ..client.endpoint import Endpoint
from ..client.errors import Refused, RequestFailed
from ..errors import NotFound, UsageError, UserError
from ..secret import secrets_in, without_password
from ..supervisor.executable import vllm_program
from . import goodput, warm_up
from .options import LoadShape

RESULT = "result.json"
_IN, _OUT = "total_input_tokens", "total_output_tokens"
_REQUEST_ERROR = re.compile(r"^Error 0: (.*?)(?=^Error 1: |^[=-]{3,}|^tip: |\Z)", re.MULTILINE | re.DOTALL)
_CAUSE = 400  # characters of a reason, which may quote the prompt
_CAUSE_LINES = 400  # the end of the output, which is searched for the reason of a failure


class LoadFailed(UserError):
    """`vllm bench serve` ended without figures."""


@dataclass(frozen=True)
class Row:
    """
    The figures of one measurement. Times in ms; `acceptance` is accepted / drafted tokens, None without drafts.

    `by_position` is the share of drafts accepted up to each position.
    """

    batch: int
    input: int
    output: int
    requests: int
    output_tokens_per_second: float
    tpot_p50: float
    tpot_p99: float
    ttft_p50: float
    ttft_p99: float
    acceptance: float | None
    drafted: int
    accepted: int
    seconds: float
    """From the first request to the last token."""
    by_position: tuple[float, ...] = ()
    good_share: float | None = None
    """The share of requests that kept the limits, None without limits."""
    request_goodput: float | None = None
    """Those requests, per second."""
    history: int = 0
    """Tokens before `input` that the requests of one conversation share."""
    round: int = 1
    """Which time it is that this shape is measured."""
    counted: tuple[int, int] | None = None
    """Tokens of all prompts and of all answers, as the server's `usage` counts them."""
    cached_share: float | None = None
    """Prompt tokens found in the prefix cache / looked up; None without vLLM's counters."""

    def to_json(self) -> dict[str, Any]:
        """Return the row by the names of its fields."""
        return asdict(self)


def run(shape: LoadShape, endpoint: Endpoint, model: str, tokenizer: Tokenizer, environ: Mapping[str, str]) -> Row:
    """
    Send the requests of `shape` to `endpoint`, and return the figures.

    The program is `environ["DSV4_VLLM"]`. Raise LoadFailed with the cause that it names, NotFound where there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        argv = command(shape, endpoint, model, tokenizer, scratch)
        if shutil.which(environ["DSV4_VLLM"]) is None:
            raise _not_found(environ["DSV4_VLLM"], "no such program")
        _warm_up(shape, endpoint, model)
        key = {"OPENAI_API_KEY": endpoint.key or ""}  # empty: none of the user's own for another server
        log = Path(scratch, "log")
        before = prefix_cache(endpoint)
        with log.open("wb") as out:
            try:
                ended = subprocess.run(
                    [environ["DSV4_VLLM"], *argv],
                    env={**environ, **key},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            except OSError as error:
                raise _not_found(environ["DSV4_VLLM"], error.strerror) from None
        output = log.read_text(encoding="utf-8", errors="replace")
        saved = Path(scratch, RESULT)
        if ended.returncode or not saved.exists():
            raise LoadFailed(f"`vllm bench serve` ended with status {ended.returncode}: {cause(output)}")
        found = row(shape, json.loads(saved.read_text(encoding="utf-8")), error_of_request(output))
        return replace(found, cached_share=cached_share(before, prefix_cache(endpoint)))


def _not_found(program: str, why: str | None) -> NotFound:
    return NotFound(
        f"{program}: cannot be started ({why}); `dsv4 bench` measures with vLLM's own load generator, so install vLLM"
        " here too, or name it with DSV4_VLLM."
    )


def _warm_up(shape: LoadShape, endpoint: Endpoint, model: str) -> None:
    try:
        warm_up.send(shape, endpoint, model)
    except RequestFailed as error:
        told = " ".join((error.with_reason() if isinstance(error, Refused) else str(error)).split())
        raise LoadFailed(f"a request before the measurement failed: {told[:_CAUSE].rstrip('.')}.") from None


def prefix_cache(endpoint: Endpoint) -> tuple[int, int] | None:
    """Return the prompt tokens found in the prefix cache, and those looked up, since the start; None where unknown."""
    with contextlib.suppress(RequestFailed, ValueError):
        found = counters.read(http.get_accepted(f"{endpoint.url}/metrics", endpoint.key).text)
        return found.prefix_hits, found.prefix_queries
    return None


def cached_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Return the share of the prompt tokens looked up between two readings that were found; None where unknown."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return round((after[0] - before[0]) / (after[1] - before[1]), 4)


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer that random prompts are made with: a folder or a repository, and vLLM's mode for it."""

    name: str
    mode: str = "auto"


def command(shape: LoadShape, endpoint: Endpoint, model: str, tokenizer: Tokenizer, folder: str) -> list[str]:
    """Return the arguments after `vllm`; raise UsageError for an address with a password, which they would show."""
    if secrets_in("url", endpoint.url):
        raise UsageError(
            f"{without_password(endpoint.url)} holds a password, which vLLM's load generator would show in its"
            " arguments; use an address without one, and --api-key-file for a key."
        )
    settings = {
        "backend": "openai",
        "base-url": endpoint.url,
        "model": model,
        "tokenizer": tokenizer.name,
        "tokenizer-mode": tokenizer.mode,
        **_prompts(shape),
        "num-prompts": shape.requests,
        "max-concurrency": shape.batch,
        "seed": shape.seed,
        "temperature": 0,
        "percentile-metrics": "ttft,tpot",
        "metric-percentiles": "50,99",
        "result-dir": folder,
        "result-filename": RESULT,
    }
    options = [argument for name, value in settings.items() for argument in (f"--{name}", str(value))]
    limits = goodput.arguments(shape.limits)
    return ["bench", "serve", *options, *limits, "--ignore-eos", "--save-result", "--disable-tqdm"]


def _prompts(shape: LoadShape) -> dict[str, str | int]:
    """Return the settings of random prompts, or of random conversations that send their history again."""
    if not shape.history:
        lengths = {"random-input-len": shape.input, "random-output-len": shape.output, "random-range-ratio": 0}
        return {"dataset-name": "random", **lengths}
    return {
        "dataset-name": "prefix_repetition",
        "prefix-repetition-prefix-len": shape.history,
        "prefix-repetition-suffix-len": shape.input,
        "prefix-repetition-num-prefixes": shape.batch,
        "prefix-repetition-output-len": shape.output,
    }


def row(shape: LoadShape, saved: Mapping[str, Any], error: str = "") -> Row:
    """Return the reported figures; raise LoadFailed if a request failed, as the others then mean little."""
    failed = shape.requests - int(saved.get("completed", 0))
    if failed:
        first = f" The first error: {error}." if error else ""
        raise LoadFailed(
            f"{failed} of {shape.requests} requests failed at batch {shape.batch}; see the server's log.{first}"
        )
    drafted = int(saved.get("spec_decode_draft_tokens", 0))
    accepted = int(saved.get("spec_decode_accepted_tokens", 0))
    rate = saved["request_goodput"] if shape.limits else None  # good requests / seconds
    return Row(
        batch=shape.batch,
        input=shape.input,
        output=shape.output,
        requests=shape.requests,
        output_tokens_per_second=round(saved["output_throughput"], 2),
        tpot_p50=round(saved["p50_tpot_ms"], 3),
        tpot_p99=round(saved["p99_tpot_ms"], 3),
        ttft_p50=round(saved["p50_ttft_ms"], 1),
        ttft_p99=round(saved["p99_ttft_ms"], 1),
        acceptance=round(accepted / drafted, 4) if drafted else None,
        drafted=drafted,
        accepted=accepted,
        seconds=round(saved["duration"], 2),
        by_position=tuple(round(share, 4) for share in saved.get("spec_decode_per_position_acceptance_rates") or ()),
        good_share=None if rate is None else round(round(rate * saved["duration"]) / shape.requests, 6),
        request_goodput=None if rate is None else round(rate, 4),
        history=shape.history,
        round=shape.round,
        counted=(int(saved[_IN]), int(saved[_OUT])) if _IN in saved and _OUT in saved else None,
    )


def error_of_request(output: str) -> str:
    """Return the last line of the first request's error that `vllm bench serve` prints; empty for none."""
    found = _REQUEST_ERROR.search(output)
    lines = [line.strip() for line in found[1].splitlines() if line.strip()] if found else []
    return lines[-1][:300].rstrip(".!") if lines else ""


def cause(output: str) -> str:
    """Return the line of the output that names the reason: the last one of a traceback, else the last one."""
    lines = [line.strip() for line in output.splitlines()[-_CAUSE_LINES:] if line.strip()]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "error"))]
    return (named or lines or ["no output"])[-1][:_CAUSE]


def program_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with DSV4_VLLM set to the vLLM that `serve` would start."""
    return {**environ, "DSV4_VLLM": vllm_program(environ)}
