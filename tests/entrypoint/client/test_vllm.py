"""The client of vLLM: over real sockets, and against real vLLM, a sound one and one with NaN logits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from dsv4_serve.demo import llama
from dsv4_serve.demo.server import Server, open_port
from dsv4_serve.healthcheck.engine import Engine, Refused, Unreachable, _broken

T = TypeVar("T")


def asked(url: str, question: Callable[[Engine], Awaitable[T]], key: str = "") -> T:
    async def ask() -> T:
        engine = Engine(url, key)
        try:
            return await question(engine)
        finally:
            await engine.close()

    return asyncio.run(ask())


def test_a_port_where_nobody_listens_is_unreachable_and_not_healthy():
    url = f"http://127.0.0.1:{open_port(0)}"
    assert not asked(url, lambda engine: engine.healthy())
    with pytest.raises(Unreachable, match=f"{url}/metrics"):
        asked(url, lambda engine: engine.counters())


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_an_error_is_refused_with_its_status_and_without_the_servers_words(answering, status):
    url = answering(status, "the prompt was: secret")
    assert not asked(url, lambda engine: engine.healthy())
    with pytest.raises(Refused) as caught:
        asked(url, lambda engine: engine.complete("Hello", 1))
    assert str(caught.value) == f"/v1/models: HTTP {status}"


@pytest.mark.parametrize("body", ["<html>", "{}", "[]", "null", '{"data": 3}'])
def test_something_that_is_not_vllm_is_unreachable(answering, body):
    with pytest.raises(Unreachable, match="not an answer of vLLM's"):
        asked(answering(200, body), lambda engine: engine.models())


def test_counters_that_are_no_numbers_are_unreachable(answering):
    with pytest.raises(Unreachable, match="cannot be read"):
        asked(answering(200, "vllm:generation_tokens_total NaN\n"), lambda engine: engine.counters())


def test_the_key_is_sent_and_a_proxy_of_the_environment_is_not_asked(answering, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{open_port(0)}")
    assert asked(answering(200, "AUTHORIZATION"), lambda engine: engine.metrics(), key="k") == "Bearer k"
    assert asked(answering(200, "AUTHORIZATION"), lambda engine: engine.metrics()) == ""


def test_counters_that_never_rest_are_returned_in_the_end(answering):
    began = time.monotonic()
    url = answering(200, "vllm:num_requests_running 1.0\n")
    assert asked(url, lambda engine: engine.settled_counters()).running == 1
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -9999.0])
def test_one_logprob_that_is_no_number_or_infinite_breaks_an_answer(number):
    assert _broken((-0.1, number, -0.2))
    assert not _broken((-0.1, -11.7, 0.0))


@pytest.mark.slow
def test_real_vllm_gives_text_tokens_and_their_logprobs(vllm: Server):
    assert asked(vllm.url, lambda engine: engine.healthy())
    assert asked(vllm.url, lambda engine: engine.models()) == ["demo"]
    answer = asked(vllm.url, lambda engine: engine.complete("Hello", 21, logprobs=True, salt="s"))
    assert answer.text == llama.ANSWER[: len(answer.text)]
    assert len(answer.tokens) == len(answer.logprobs) == 21
    assert answer.broken == ""


@pytest.mark.slow
def test_an_answer_ends_where_the_model_ends_it_only_when_it_may(vllm: Server):
    longer = llama.ANSWER_TOKENS + 20
    assert len(asked(vllm.url, lambda engine: engine.complete("Hello", longer)).tokens) == longer
    to_the_end = asked(vllm.url, lambda engine: engine.complete("Hello", longer, to_the_end=True))
    assert to_the_end.text == llama.ANSWER


@pytest.mark.slow
def test_real_counters_move_with_an_answer_and_are_settled_after_it(vllm: Server):
    async def scenario(engine: Engine) -> list[int]:
        before = await engine.settled_counters()
        await engine.complete("Hello", 16)
        after = await engine.settled_counters()
        assert after == await engine.counters()
        return [after.generated - before.generated, after.finished - before.finished, after.prompt - before.prompt]

    assert asked(vllm.url, scenario) == [16, 1, len("Hello")]


@pytest.mark.slow
def test_nan_logits_of_real_vllm_are_a_sign_and_no_exception(broken: Server):
    answer = asked(broken.url, lambda engine: engine.complete("Hello", 4, logprobs=True))
    assert answer.broken == "its log-probabilities are no numbers (NaN logits)"
