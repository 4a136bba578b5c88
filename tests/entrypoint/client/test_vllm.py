"""The client of vLLM: over real sockets, and against real vLLM, a sound one and one with NaN logits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from dsv4_serve.demo import llama
from dsv4_serve.entrypoint.client.answers import Stream
from dsv4_serve.entrypoint.client.answers import broken as broken_numbers
from dsv4_serve.entrypoint.client.errors import Refused, Unreachable
from dsv4_serve.entrypoint.client.local_replica import ServeProcess, free_port
from dsv4_serve.entrypoint.client.vllm import VllmClient
from tests.support.client import with_client
from tests.support.http_servers import http_servers
from tests.support.patience import slowness
from tests.support.running_demo import Demo


def test_a_port_where_nobody_listens_is_unreachable_and_not_healthy():
    url = f"http://127.0.0.1:{free_port()}"
    assert not with_client(url, lambda engine: engine.healthy())
    with pytest.raises(Unreachable, match=f"{url}/metrics"):
        with_client(url, lambda engine: engine.counters())


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_an_error_is_refused_with_its_status_and_without_the_servers_text(answering, status):
    url = answering(status, "the prompt was: secret")
    assert not with_client(url, lambda engine: engine.healthy())
    with pytest.raises(Refused) as caught:
        with_client(url, lambda engine: engine.complete("Hello", 1))
    assert str(caught.value) == f"/v1/models: HTTP {status}"


@pytest.mark.parametrize("body", ["<html>", "{}", "[]", "null", '{"data": 3}'])
def test_something_that_is_not_vllm_is_unreachable(answering, body):
    with pytest.raises(Unreachable, match="the answer is not from vLLM"):
        with_client(answering(200, body), lambda engine: engine.models())


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_is_nested_too_deeply_is_one_sentence(answering, status):
    url = answering(status, "[" * 100_000)
    with pytest.raises(Unreachable if status == 200 else Refused, match="no JSON object|not from vLLM|HTTP 400"):
        with_client(url, lambda client: client.chat("Hello", 1))


def test_the_servers_own_sentence_is_kept_apart_from_the_text(answering):
    url = answering(400, '{"error": {"message": "max_tokens is too large"}}')
    with pytest.raises(Refused) as caught:
        with_client(url, lambda client: client.models())
    assert str(caught.value) == "/v1/models: HTTP 400"
    assert caught.value.with_reason() == "/v1/models: HTTP 400: max_tokens is too large"


@pytest.fixture
def streaming() -> Iterator[Callable[[bytes, str], str]]:
    """Start a real HTTP server that answers every chat with one body, and return its URL."""
    with http_servers() as start:

        def answering(body: bytes, kind: str = "text/event-stream; charset=utf-8") -> str:
            class Streaming(BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    self.rfile.read(int(self.headers["Content-Length"]))
                    self.send_response(200)
                    self.send_header("Content-Type", kind)
                    self.end_headers()
                    self.wfile.write(body)

            return start(Streaming)

        yield answering


def streamed(url: str) -> Stream:
    async def ask() -> Stream:
        client = VllmClient(url, model="m")
        try:
            return await client.stream("Hello", 4)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_a_stream_may_have_comments_and_events_of_several_lines(streaming):
    body = (
        b": ping\n\n"
        b'data: {"choices": [{"delta": {"reasoning": "hm"}}]}\n\n'
        b'data: {"choices":\ndata: [{"delta": {"content": "\xc3\xa9"}, "finish_reason": "stop"}]}\r\n\r\n'
        b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\n'
        b"data: [DONE]\n\n"
    )
    found = streamed(streaming(body))
    assert (found.pieces, found.finish) == ([("reasoning", "hm"), ("content", "é")], ["stop"])
    assert (found.tokens, found.done, found.seconds > 0) == (2, True, True)


def test_usage_before_the_last_piece_does_not_count(streaming):
    body = b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\ndata: {"choices": [{"delta": {"content": "a"}}]}\n\n'
    assert streamed(streaming(body)).tokens is None


def test_a_page_in_place_of_a_stream_is_unreachable(streaming):
    with pytest.raises(Unreachable, match="the stream broke .*text/event-stream"):
        streamed(streaming(b"<html>", "text/html"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"data: hello\n\n", "not a JSON object"),
        (b"data: []\n\n", "not a JSON object"),
        pytest.param(b"data: " + b"[" * 50_000 + b"\n\n", "not a JSON object", id="deep"),
        (b'data: {"text": "\\ud800"}\n\n', "not a JSON object"),
        (b'data: {"error": "died"}\n\n', "died"),
    ],
)
def test_a_stream_of_something_else_is_refused(streaming, body, message):
    with pytest.raises(Refused, match=message):
        streamed(streaming(body))


@pytest.mark.parametrize("body", ["{}", '{"choices": []}', '{"choices": [3]}', '{"choices": [{"text": "a"}]}'])
def test_a_completion_without_a_choice_is_refused(answering, body):
    async def ask() -> None:
        client = VllmClient(answering(200, body), model="m")
        try:
            await client.complete("Hello", 1)
        finally:
            await client.close()

    with pytest.raises(Refused, match="the answer has no choice"):
        asyncio.run(ask())


def test_counters_that_are_no_numbers_are_unreachable(answering):
    with pytest.raises(Unreachable, match="cannot be read"):
        with_client(answering(200, "vllm:generation_tokens_total NaN\n"), lambda engine: engine.counters())


def test_the_key_is_sent_and_a_proxy_of_the_environment_is_not_used(answering, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert with_client(answering(200, "AUTHORIZATION"), lambda engine: engine.metrics(), key="k") == "Bearer k"
    assert with_client(answering(200, "AUTHORIZATION"), lambda engine: engine.metrics()) == ""


def test_counters_that_never_rest_are_returned_in_the_end(answering):
    began = time.monotonic()
    url = answering(200, "vllm:num_requests_running 1.0\n")
    assert with_client(url, lambda engine: engine.settled_counters()).running == 1
    assert time.monotonic() - began < 10 * slowness()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -9999.0])
def test_one_logprob_that_is_no_number_or_infinite_breaks_an_answer(number):
    assert broken_numbers((-0.1, number, -0.2))
    assert not broken_numbers((-0.1, -11.7, 0.0))


@pytest.mark.slow
def test_real_vllm_gives_text_tokens_and_their_logprobs(vllm: Demo):
    assert with_client(vllm.endpoint.url, lambda engine: engine.healthy())
    assert with_client(vllm.endpoint.url, lambda engine: engine.models()) == ["demo"]
    answer = with_client(vllm.endpoint.url, lambda engine: engine.complete("Hello", 21, logprobs=True, salt="s"))
    assert answer.text == llama.ANSWER[: len(answer.text)]
    assert len(answer.tokens) == len(answer.logprobs) == 21
    assert answer.broken == ""


@pytest.mark.slow
def test_an_answer_ends_where_the_model_ends_it_only_when_it_may(vllm: Demo):
    longer = llama.ANSWER_TOKENS + 20
    assert len(with_client(vllm.endpoint.url, lambda engine: engine.complete("Hello", longer)).tokens) == longer
    to_the_end = with_client(vllm.endpoint.url, lambda engine: engine.complete("Hello", longer, to_the_end=True))
    assert to_the_end.text == llama.ANSWER


@pytest.mark.slow
def test_real_counters_move_with_an_answer_and_are_settled_after_it(vllm: Demo):
    async def scenario(engine: VllmClient) -> list[int]:
        before = await engine.settled_counters()
        await engine.complete("Hello", 16)
        after = await engine.settled_counters()
        assert after == await engine.counters()
        return [after.generated - before.generated, after.finished - before.finished, after.prompt - before.prompt]

    assert with_client(vllm.endpoint.url, scenario) == [16, 1, len("Hello")]


@pytest.mark.slow
def test_nan_logits_of_real_vllm_are_a_sign_and_no_exception(broken: ServeProcess):
    answer = with_client(broken.endpoint.url, lambda engine: engine.complete("Hello", 4, logprobs=True))
    assert answer.broken == "its log-probabilities are not numbers (NaN logits)"
