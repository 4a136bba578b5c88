"""Prompts that share beginnings: what they hold, what the cache should have, and what a server is asked."""

from __future__ import annotations

import itertools
import json
import time
from http.server import BaseHTTPRequestHandler

import pytest

from dsv4_serve.demo.deepseek_v4 import Answer
from dsv4_serve.demo.v4_text import reaching_walk
from qualification.gpu import run_layouts, shared
from tests.support.http_servers import answer_json, http_servers

WALK = reaching_walk(512)
assert WALK.reach
KINDS = shared.beginnings(Answer(WALK.successors), WALK.reach, 8)
EXPECTED = [0, 0, 512, 512] * 3 + [0, 0, 768, 768] * 2


def test_a_key_of_the_beginning_decides_and_stands_in_what_is_cached() -> None:
    assert [one.shared for one in KINDS] == [768, 799, 831, 832, 968]
    assert [count for one in KINDS for count in one.cached] == EXPECTED
    assert WALK.reach
    for kind in KINDS:
        first = kind.questions[0].prompt
        [key] = set(first) & set(WALK.reach.keys)
        assert kind.cached[-1] - shared.BEHIND == first.index(key)
        assert len({one.prompt[: kind.shared] for one in kind.questions}) == 1
        assert len({one.prompt[kind.shared] for one in kind.questions}) == len(kind.questions)  # so no more is shared
        assert {one.prompt[-1] for one in kind.questions} == set(WALK.reach.queries.values())
        for one in kind.questions:
            assert len(one.prompt) - 128 > kind.shared  # further than a window
            assert len(one.prompt) // 256 * 256 - 256 > kind.shared  # where vLLM keeps windows by itself
            assert one.answer[0] == WALK.successors[key]
    begins = [one.questions[0].prompt[:256] for one in KINDS]
    assert len(set(begins)) == len(begins)


def test_each_beginning_of_which_the_cache_has_other_tokens_is_named() -> None:
    assert shared.unlike(KINDS, EXPECTED) == {}
    lost = [*EXPECTED[:4], 0, 0, 0, 0, *EXPECTED[8:-1], 512]
    assert shared.unlike(KINDS, lost) == {"799": [0, 0, 0, 0], "968": [0, 0, 768, 512]}


@pytest.mark.parametrize("says", [True, False])
def test_answers_and_what_the_cache_had_are_counted(says: bool) -> None:
    prompts = {one.prompt: one.answer for kind in KINDS for one in kind.questions}
    had = iter(EXPECTED)
    drafted = itertools.count()

    class Engine(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v1/models":
                return answer_json(self, {"data": [{"id": "m"}]})
            number = 100 * next(drafted)
            text = "".join(f"vllm:spec_decode_num_{name}_tokens_total {number}\n" for name in ("draft", "accepted"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())
            return None

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            cached = next(had)
            details = {"cached_tokens": cached} if cached and says else None
            usage = {"prompt_tokens": len(body["prompt"]), "prompt_tokens_details": details}
            answer = {"choices": [{"token_ids": prompts[tuple(body["prompt"])]}], "usage": usage}
            return answer_json(self, answer)

    with http_servers() as start:
        port = int(start(Engine).rpartition(":")[2])
        found = run_layouts.found_again(port, KINDS, time.monotonic() + 60)
    assert found["right"] == found["asked"] == 8 * len(prompts)
    assert found["acceptance"] == 1
    assert found["cached"] == (EXPECTED if says else [0] * len(EXPECTED))
    assert bool(found["unlike"]) != says
