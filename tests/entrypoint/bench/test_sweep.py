"""Prompts of every length, over a real HTTP server that counts them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dsv4_serve.entrypoint.bench import sweep
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.plan import Plan, Setting

TOO_LONG = 700


class Server(ThreadingHTTPServer):
    prompts: list[list[int]]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Server)
        self.server.prompts.append(body["prompt"])
        self.answer({"choices": [{"text": "", "token_ids": []}]}, 400 if len(body["prompt"]) > TOO_LONG else 200)

    def answer(self, body: object, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.prompts = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def where(server: Server) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{server.server_address[1]}")


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
