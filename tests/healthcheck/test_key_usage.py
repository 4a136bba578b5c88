"""Usage by the name of a key, on real vLLM: what is counted is what vLLM's own answers say."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest

from tests.support.patience import slowness
from tests.support.replica import Replica
from tests.support.running_demo import NAME

KEY = "ab" * 32


@pytest.fixture
def client(keyed_demo: Replica):
    keyed_demo.until_ready(900)
    url = f"http://127.0.0.1:{keyed_demo.port}"
    with httpx.Client(base_url=url, headers={"x-api-key": KEY}, timeout=120 * slowness(), trust_env=False) as made:
        yield made


def counted(client: httpx.Client) -> dict[str, float]:
    found = re.findall(r'^dsv4_key_(\w+)\{name="default"\} (\S+)', client.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_tokens_are_those_of_vllms_answers(client: httpx.Client, keyed_demo: Replica) -> None:
    before = counted(client)
    prompt: dict[str, Any] = {"model": NAME, "prompt": "Once upon a time", "max_tokens": 7, "ignore_eos": True}
    question = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
    whole = client.post("/v1/completions?key=geheim", json={**prompt, "n": 2, "temperature": 1}).json()["usage"]
    chat = client.post("/v1/chat/completions", json=question).json()["usage"]
    message = client.post("/v1/messages", json=question).json()["usage"]
    stream = client.post("/v1/completions", json={**prompt, "stream": True})  # without stream_options: no usage in it
    assert '"usage"' not in stream.text
    after = counted(client)
    one = whole["prompt_tokens"]
    prompts = one + chat["prompt_tokens"] + message["input_tokens"] + one
    assert after["prompt_tokens_total"] - before.get("prompt_tokens_total", 0) == prompts
    tokens = 14 + chat["completion_tokens"] + message["output_tokens"] + 7
    assert after["generated_tokens_total"] - before.get("generated_tokens_total", 0) == tokens
    log = keyed_demo.log_text()
    assert '"name": "default", "path": "/v1/messages", "status": 200' in log
    assert "geheim" not in log
    assert KEY not in log


def test_a_stream_that_its_client_leaves_is_counted(client: httpx.Client) -> None:
    before = counted(client).get("generated_tokens_total", 0)
    body = {"model": NAME, "prompt": "Once", "max_tokens": 5000, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as stream:
        for _, _ in zip(range(20), stream.iter_lines(), strict=False):
            pass
    ends = time.monotonic() + 30 * slowness()
    while counted(client)["requests_running"] > 1 and time.monotonic() < ends:  # the scrape itself is one
        time.sleep(0.1)
    assert counted(client)["requests_running"] == 1
    assert 5 <= counted(client)["generated_tokens_total"] - before < 5000
