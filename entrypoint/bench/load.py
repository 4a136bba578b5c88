"""Run one measurement with `vllm bench serve`, and read the figures that it saved."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..client.endpoint import Endpoint
from ..errors import NotFound, UserError
from ..supervisor.executable import vllm_program
from . import goodput
from .options import LoadShape

RESULT = "result.json"
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
        key = {"OPENAI_API_KEY": endpoint.key} if endpoint.key else {}
        log = Path(scratch, "log")
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
                raise NotFound(
                    f"{environ['DSV4_VLLM']}: cannot be started ({error.strerror}); `dsv4 bench` measures with vLLM's"
                    " own load generator, so install vLLM here too, or name it with DSV4_VLLM."
                ) from None
        output = log.read_text(encoding="utf-8", errors="replace")
        saved = Path(scratch, RESULT)
        if ended.returncode or not saved.exists():
            raise LoadFailed(f"`vllm bench serve` ended with status {ended.returncode}: {cause(output)}")
        return row(shape, json.loads(saved.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer that random prompts are made with: a folder or a repository, and vLLM's mode for it."""

    name: str
    mode: str = "auto"


def command(shape: LoadShape, endpoint: Endpoint, model: str, tokenizer: Tokenizer, folder: str) -> list[str]:
    """Return the arguments after `vllm`."""
    settings = {
        "backend": "openai",
        "base-url": endpoint.url,
        "model": model,
        "tokenizer": tokenizer.name,
        "tokenizer-mode": tokenizer.mode,
        **_prompts(shape),
        "num-prompts": shape.requests,
        "num-warmups": shape.warm_up,
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


def row(shape: LoadShape, saved: Mapping[str, Any]) -> Row:
    """Return the reported figures; raise LoadFailed if a request failed, as the others then mean little."""
    failed = shape.requests - int(saved.get("completed", 0))
    if failed:
        raise LoadFailed(f"{failed} of {shape.requests} requests failed at batch {shape.batch}; see vLLM's log.")
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
    )


def cause(output: str) -> str:
    """Return the line of the output that names the reason: the last one of a traceback, else the last one."""
    lines = [line.strip() for line in output.splitlines()[-_CAUSE_LINES:] if line.strip()]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "error"))]
    return (named or lines or ["no output"])[-1][:400]


def program_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with DSV4_VLLM set to the vLLM that `serve` would start."""
    return {**environ, "DSV4_VLLM": vllm_program(environ)}
