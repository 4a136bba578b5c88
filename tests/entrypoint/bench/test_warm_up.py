"""Requests before a measurement, over a real HTTP server that keeps them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import load, warm_up
from dsv4_serve.entrypoint.bench.load import LoadFailed, Tokenizer
from dsv4_serve.entrypoint.bench.options import LoadShape
from dsv4_serve.entrypoint.client import http, local_replica
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.local_replica import Stopped
from dsv4_serve.entrypoint.errors import NotFound, UsageError
from tests.support.http_servers import answer_json, http_servers

TOO_MANY, ECHOED = 999, 998
ALL = 20
"""Seconds until an answer that waits for others."""
SHAPE = LoadShape(batch=3, input=64, output=7, requests=12, warm_up=3, seed=5)


@dataclass
class Sent:
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)


@pytest.fixture
def server() -> Iterator[Sent]:
    sent, together = Sent(), threading.Barrier(SHAPE.warm_up)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent.bodies.append(body)
            sent.keys.add(self.headers["Authorization"])
            together.wait(ALL)  # until all have come
            said = {TOO_MANY: "too many tokens", ECHOED: f"no\ntokens: {body['prompt']}"}.get(body["max_tokens"])
            answer_json(self, {"error": {"message": said}} if said else {}, 400 if said else 200)

    with http_servers() as start:
        sent.url = start(Handler)
        yield sent


def where(server: Sent) -> Endpoint:
    return Endpoint(server.url, None, "secret")


def test_so_many_requests_of_the_shape_are_sent_at_once_with_the_key(server: Sent) -> None:
    warm_up.send(SHAPE, where(server), "m")
    assert [(len(body["prompt"]), body["max_tokens"], body["model"]) for body in server.bodies] == [(64, 7, "m")] * 3
    assert all(body["ignore_eos"] and body["temperature"] == 0 for body in server.bodies)
    assert server.keys == {"Bearer secret"}


def test_no_two_prompts_of_any_rows_begin_alike() -> None:
    blocks = [prompt[:16] for seed in range(20) for prompt in warm_up.prompts(LoadShape(3, warm_up=3, seed=seed))]
    assert len({tuple(block) for block in blocks}) == 60


@pytest.mark.parametrize(("history", "length", "tokens"), [(0, 1, 1), (16128, 256, 16384), (500_000, 256, 16384)])
def test_a_prompt_is_as_long_as_a_measured_one_but_no_longer_than_needed(
    history: int, length: int, tokens: int
) -> None:
    assert [len(prompt) for prompt in warm_up.prompts(LoadShape(1, length, history=history))] == [tokens]


def test_without_any_nothing_is_sent() -> None:
    warm_up.send(LoadShape(1, warm_up=0), Endpoint("http://127.0.0.1:9"), "m")


def test_a_refused_one_ends_the_measurement_with_the_reason_of_the_server(server: Sent) -> None:
    shape = LoadShape(3, output=TOO_MANY, warm_up=3)
    with pytest.raises(LoadFailed, match=r"failed: /v1/completions: HTTP 400: too many tokens\.$"):
        load.run(shape, where(server), "m", Tokenizer("t"), {"DSV4_VLLM": sys.executable})


def test_no_answer_ends_it_too() -> None:
    with pytest.raises(LoadFailed, match="a request before the measurement failed: http://127.0.0.1:9"):
        load.run(SHAPE, Endpoint("http://127.0.0.1:9"), "m", Tokenizer("t"), {"DSV4_VLLM": sys.executable})


def test_a_reason_that_quotes_the_prompt_is_cut_to_one_line(server: Sent) -> None:
    shape = LoadShape(3, input=5000, output=ECHOED, warm_up=3)
    with pytest.raises(LoadFailed) as failed:
        load.run(shape, where(server), "m", Tokenizer("t"), {"DSV4_VLLM": sys.executable})
    assert "HTTP 400: no tokens: [" in str(failed.value)
    assert len(str(failed.value)) < 500


def test_a_signal_within_the_event_loop_ends_it(server: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    body, threads, began = warm_up._body, {*threading.enumerate()}, time.monotonic()

    def interrupted(shape: LoadShape, model: str, prompt: list[int]) -> dict[str, object]:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        return body(shape, model, prompt)

    monkeypatch.setattr(warm_up, "_body", interrupted)
    with pytest.raises(Stopped, match="SIGINT"), local_replica.stops_raise():
        warm_up.send(LoadShape(1, warm_up=1), where(server), "m")  # the server waits for two more
    assert len({*threading.enumerate()} - threads) <= 1  # that of the server
    assert time.monotonic() - began < ALL, "its requests are cancelled"


def test_nothing_is_sent_where_the_load_generator_could_not_start(server: Sent) -> None:
    with pytest.raises(NotFound, match="/nowhere: cannot be started"):
        load.run(SHAPE, where(server), "m", Tokenizer("t"), {"DSV4_VLLM": "/nowhere"})
    with pytest.raises(UsageError, match="holds a password"):
        load.run(SHAPE, Endpoint(f"http://u:pw@{server.url[7:]}"), "m", Tokenizer("t"), {"DSV4_VLLM": sys.executable})
    assert not server.bodies


def test_a_first_answer_may_wait_for_kernels(server: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SECONDS", 0.2)
    threading.Timer(0.6, warm_up.send, (LoadShape(2, warm_up=2), where(server), "m")).start()
    warm_up.send(LoadShape(1, warm_up=1), where(server), "m")  # the server waits for the two
    assert len(server.bodies) == 3


def test_what_the_prefix_cache_had_is_counted_after_it(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list[str]()

    def counted(_endpoint: Endpoint) -> tuple[int, int]:
        order.append("counters")
        return 0, len(order)

    monkeypatch.setattr(load, "prefix_cache", counted)
    monkeypatch.setattr(warm_up, "send", lambda *_: order.append("warm-up"))
    with pytest.raises(LoadFailed):
        load.run(SHAPE, Endpoint("http://127.0.0.1:9"), "m", Tokenizer("t"), environ | {"GENERATOR": "breaks"})
    assert order == ["warm-up", "counters"]
