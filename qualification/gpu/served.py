"""One server under test: started, queried, measured, ended."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint.client import counters
from dsv4_serve.entrypoint.qualify.known import Question
from qualification.gpu import session

SPECULATIVE = '{"method": "mtp", "num_speculative_tokens": 1}'
HEALTH = 500
"""The health port of the product is so much higher than the server's."""
FLAGS = [
    "--enforce-eager",
    "--max-model-len",
    "4096",
    "--max-num-seqs",
    "4",
    "--max-num-batched-tokens",
    "1024",
    "--block-size",
    "256",
    "--kv-cache-dtype",
    "fp8",
    "--kv-cache-memory-bytes",
    "2147483648",
    "--gpu-memory-utilization",
    "0.1",
]


@dataclass
class Answered:
    """Counts of one server: tokens as expected, tokens asked for, draft tokens made, accepted, accepted at each position."""

    right: int
    asked: int
    drafted: int
    accepted: int
    accepted_at: tuple[int, ...]

    @property
    def acceptance(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0


class Ended(Exception):
    """The server went away or ran out of time before it answered."""


@contextmanager
def server(
    argv: list[str], *, tp: int, port: int, devices: str, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """
    Start `argv` as the leader of a session whose processes are ended with the block.

    Its output goes to `log`.
    """
    flags = [*FLAGS, "--tensor-parallel-size", str(tp), "--port", str(port)]
    ours = {"DSV4_HEALTH_PORT": str(port + HEALTH), "DSV4_RUN_DIR": str(log.with_suffix(".run"))}
    warned = {"DSV4_GATE_BELOW_FLOOR": "warn"}  # a scrambled draft head is to be served here, and counted
    environment = os.environ | ours | warned | dict(env or {}) | {"CUDA_VISIBLE_DEVICES": devices}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, *flags], stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            yield process
        finally:
            session.end(process, 15)


def wait_until_ready(process: subprocess.Popen[bytes], url: str, until: float) -> None:
    """Wait for `url` to answer. Raises Ended when the process ends or the monotonic clock passes `until`."""
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Ended(f"exited with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise Ended("not ready in time")


def ask(port: int, questions: list[Question], until: float, cached: list[int] | None = None) -> Answered:
    """
    Complete every prompt greedily and compare token by token. Raises OSError when the server fails to answer.

    `cached` gets how many tokens of each prompt the cache had, where the server tells.
    """
    was = _counters(port, until)
    right = 0
    for question in questions:
        prompt, want = list(question.prompt), question.answer
        body = {"model": _model(port, until), "prompt": prompt, "max_tokens": len(want), "temperature": 0}
        got = _post(port, "/v1/completions", body | {"ignore_eos": True, "return_token_ids": True}, until)
        ids = got["choices"][0]["token_ids"]
        right += sum(a == b for a, b in zip(ids, want, strict=False))
        if cached is not None:
            cached.append(((got.get("usage") or {}).get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    now = _counters(port, until)
    places = zip_longest(now.accepted_at, was.accepted_at, fillvalue=0)
    return Answered(
        right=right,
        asked=sum(len(question.answer) for question in questions),
        drafted=now.drafted - was.drafted,
        accepted=now.accepted - was.accepted,
        accepted_at=tuple(after - before for after, before in places),
    )


def empty_prefix_cache(port: int, until: float) -> None:
    """Empty the GPU's prefix cache, which waits for what is copied. Raises Ended when it is not empty in time."""
    while time.monotonic() < until:
        if _post(port, "/reset_prefix_cache", {}, until)["success"]:
            return
        time.sleep(0.5)
    raise Ended("its prefix cache was not emptied in time")


def metrics(port: int, until: float) -> str:
    """Return vLLM's counters as text."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_left(until)) as answer:
        return str(answer.read().decode())


def _left(until: float) -> float:
    return max(1.0, until - time.monotonic())


def _model(port: int, until: float) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=_left(until)) as answer:
        return str(json.load(answer)["data"][0]["id"])


def _post(port: int, path: str, body: dict[str, Any], until: float) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_left(until)) as answer:
        return json.load(answer)


def _counters(port: int, until: float) -> counters.Counters:
    return counters.read(metrics(port, until))
