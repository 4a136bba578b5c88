"""Prompts of every length, over a real HTTP server that counts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest

from dsv4_serve.entrypoint.bench import sweep
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.client.local_replica import Stopped
from dsv4_serve.entrypoint.plan import Plan, Setting
from tests.support.http_servers import answer_json, http_servers

TOO_LONG = 700


@dataclass
class Server:
    url: str = ""
    prompts: list[list[int]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer_json(self, {"data": [{"id": "m"}]})

        def do_POST(self) -> None:
            prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
            running.prompts.append(prompt)
            answer_json(self, {"choices": [{"text": "", "token_ids": []}]}, 400 if len(prompt) > TOO_LONG else 200)

    with http_servers() as start:
        running.url = start(Handler)
        yield running


def where(server: Server) -> Endpoint:
    return Endpoint(server.url)


def plan(**flags: int) -> Plan:
    named = {name.replace("_", "-"): Setting(value, "test") for name, value in flags.items()}
    return Plan(choices={}, flags=named, env={})


def test_every_block_of_64_tokens_that_one_step_takes_is_requested() -> None:
    found = sweep.lengths(plan(max_model_len=65536, max_num_batched_tokens=256))
    assert found == [1, 2, 4, 8, 16, 32, 64, 65, 128, 129, 192, 255, 256]


def test_a_step_that_is_no_multiple_of_8_tokens_is_requested_at_every_order_of_length() -> None:
    found = sweep.lengths(plan(max_model_len=65536, max_num_batched_tokens=8192))
    assert [length for length in found if length > 8 and length % 8] == [65, 129, 257, 513, 1025, 2049, 4097, 8191]


def test_no_prompt_is_longer_than_the_context_with_its_answer() -> None:
    assert sweep.lengths(plan(max_model_len=130, max_num_batched_tokens=8192))[-5:] == [32, 64, 65, 127, 128]
    assert sweep.lengths(plan(max_model_len=12))[-3:] == [8, 9, 10]


def test_each_length_is_requested_once_and_no_prompt_begins_like_another(server: Server) -> None:
    found = sweep.run(where(server), [8, 64, 128])
    assert found.prompts == 3
    assert [len(prompt) for prompt in server.prompts] == [8, 64, 128]
    assert len({tuple(prompt[:8]) for prompt in server.prompts}) == 3


def test_the_slowest_prompt_is_named() -> None:
    assert sweep.summary([8, 64, 128], [0.5, 7.25, 0.31]) == sweep.SweepResult(
        prompts=3, seconds=8.1, slowest=7.25, at=64
    )


def test_a_prompt_that_is_refused_is_named(server: Server) -> None:
    with pytest.raises(Unreachable, match="a prompt of 701 tokens was not answered"):
        sweep.run(where(server), [1, 701])


def test_a_signal_within_the_event_loop_ends_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = sweep._prompt

    def interrupted(tokens: int) -> list[int]:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        return prompt(tokens)

    monkeypatch.setattr(sweep, "_prompt", interrupted)
    with pytest.raises(Stopped, match="SIGINT"), local_replica.stops_raise():
        sweep.run(where(server), [8, 64])
