"""The corruption canary: what the answers mean, and real vLLM, a sound one and one with NaN logits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.client.answers import Completion
from dsv4_serve.entrypoint.client.errors import Refused, Unreachable
from dsv4_serve.entrypoint.client.local_replica import ServeProcess
from dsv4_serve.entrypoint.client.vllm import VllmClient
from dsv4_serve.healthcheck import canary
from dsv4_serve.healthcheck.garble import NAMES
from dsv4_serve.healthcheck.prompts import Prompt, prompts
from dsv4_serve.healthcheck.state import Finding
from tests.support.client import with_client
from tests.support.running_demo import Demo

TOKENS = st.lists(st.integers(0, 3), max_size=20).map(tuple)
RIGHT = "and so it went on for 3 h to Earth at 4k"
SOUND = {
    prompt: Completion(RIGHT, (index, *range(100, 147)), finish="length") for index, prompt in enumerate(prompts())
}
ENGLISH = [prompt for prompt in prompts() if prompt.script == "LATIN"]


async def run(client: Any, concurrency: int, tokens: int, signs: Iterable[str] = NAMES, floor: float = 0.5) -> Finding:
    return await canary.run(client, concurrency, tokens, signs, floor)


def judged(company: dict | None = None, alone: dict | None = None, signs=NAMES, floor: float = 0.5) -> Finding:
    return canary.judge(SOUND | (alone or {}), list((SOUND | (company or {})).items()), 4, signs, floor)


@given(TOKENS, TOKENS)
def test_agreement_is_the_common_start_by_the_longer_answer(one, other):
    share = canary.agreement(Completion("", one), Completion("", other))
    assert share == canary.agreement(Completion("", other), Completion("", one))
    assert 0 <= share <= 1
    assert (share == 1) == (one == other)
    if share < 1:
        common = round(share * max(len(one), len(other)))
        assert one[:common] == other[:common]
        assert one[: common + 1] != other[: common + 1]


def test_sound_answers_pass_with_the_figures_and_what_was_looked_for():
    assert judged() == Finding(
        "100% of tokens agree between answers alone and 4 at once (floor 50%);"
        " no sign of garbling (script-mix, repetition, logprobs, replacement, special-tokens, empty, known-answers, prompt-independence)"
    )


def test_answers_that_differ_from_the_start_under_concurrency_are_a_problem():
    other = {
        prompt: replace(answer, tokens=tuple(5000 + token for token in answer.tokens))
        for prompt, answer in SOUND.items()
    }
    assert "concurrent requests change the answers" in judged(company=other).problem
    few = {prompt: other[prompt] for prompt in ENGLISH[:4]}
    assert judged(company=few).problem == ""
    assert judged(company=few, floor=0.7).problem


FOREIGN = "которого не было"


def garbled(*which: Prompt, text: str = FOREIGN) -> dict[Prompt, Completion]:
    return {prompt: replace(SOUND[prompt], text=text) for prompt in which}


def test_two_prompts_garbled_under_concurrency_are_named_with_sign_and_kind_but_not_quoted():
    found = judged(company=garbled(*ENGLISH[:2]))
    assert "script-mix in 2 of 20 answers, none of them decoded alone (prose: 100% of its letters" in found.problem
    assert "которого" not in found.problem
    assert "decoded alone" not in judged(alone=garbled(*ENGLISH[:2])).problem


@pytest.mark.parametrize("text", [FOREIGN, "a <|eot_id|> b", "", "a\ufffdb", "la " * 40, "nothing at all"])
def test_one_garbled_prompt_is_a_warning_however_often_it_is_asked(text):
    train = next(prompt for prompt in prompts() if prompt.expects)
    found = judged(company=garbled(train, text=text), alone=garbled(train, text=text))
    assert found.problem == ""
    assert "for one prompt only" in found.warning
    both = {prompt: replace(SOUND[prompt], text=text) for prompt in prompts() if prompt.expects}
    assert judged(alone=both).problem


def test_answers_that_do_not_depend_on_the_prompt_are_a_problem():
    same = {prompt: replace(SOUND[prompt], tokens=tuple(range(48))) for prompt in (ENGLISH[0], ENGLISH[2])}
    assert "prompt-independence: 2 prompts have answers that begin alike" in judged(alone=same, floor=0.0).problem
    assert judged(alone=same, floor=0.0, signs=("script-mix",)).problem == ""


def test_an_answer_that_was_allowed_to_be_longer_agrees_as_far_as_the_other_goes():
    longer = {prompt: replace(answer, tokens=(*answer.tokens, 7, 8, 9)) for prompt, answer in SOUND.items()}
    assert judged(company=longer).detail.startswith("100% of tokens agree")
    ended = {prompt: replace(answer, finish="stop") for prompt, answer in SOUND.items()}
    assert not judged(company=longer, alone=ended).detail.startswith("100% of tokens agree")


@pytest.mark.parametrize(("concurrency", "tokens"), [(1, 48), (8, 48), (25, 48), (8, 8), (1, 32)])
def test_it_costs_no_more_than_it_says(concurrency, tokens):
    asked = []

    class Client:
        async def complete(self, text: str, most: int, **more: object) -> Completion:
            assert more["skip_special_tokens"] is False
            asked.append(most)
            return Completion(f"{text} answered", tuple(range(most)))

    asyncio.run(run(Client(), concurrency, tokens))
    assert sum(asked) == canary.cost(concurrency, tokens)
    assert sorted(set(asked)) == ([tokens, 4 * tokens] if tokens >= 32 else [tokens])


@dataclass
class Engine:
    """What vLLM is asked, and how often at once; every answer is right, or `refused`."""

    refused: str = ""
    asked: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def complete(self, text: str, most: int, **more: Any) -> Completion:
        self.asked.append((text, most, more))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if self.refused and len(self.asked) > len(prompts()):
                if text == prompts()[0].text:
                    raise Refused(self.refused)
                await asyncio.Event().wait()
        finally:
            self.at_once -= 1
        number = [prompt.text for prompt in prompts()].index(text)
        return Completion(RIGHT, (number, *range(100, 99 + most)), finish="length")


def test_one_token_is_one() -> None:
    engine = Engine()
    asyncio.run(canary.one_token(engine))  # type: ignore[arg-type]
    assert engine.asked == [(prompts()[0].text, 1, {})]


def test_each_prompt_is_asked_alone_and_then_with_others_and_never_answered_from_a_cache() -> None:
    engine = Engine()
    assert asyncio.run(run(engine, 4, 48)).problem == ""
    count = len(prompts())
    assert [text for text, _, _ in engine.asked] == [prompt.text for prompt in prompts()] * 2
    assert engine.most_at_once == 4
    salts = {more.pop("salt") for _, _, more in engine.asked}
    assert len(salts) == 2 * count
    assert all(
        more == {"logprobs": True, "to_the_end": True, "skip_special_tokens": False} for *_, more in engine.asked
    )


def test_among_concurrent_requests_each_prose_prompt_has_room_for_a_long_loop_once() -> None:
    engine = Engine()
    asyncio.run(run(engine, 13, 32))
    prose = [prompt.text for prompt in prompts() if prompt.kind == "prose"]
    assert [(text, most) for text, most, _ in engine.asked if most != 32] == [(text, 128) for text in prose]
    assert len(engine.asked) == len(prompts()) + 13


def test_a_prompt_that_is_refused_beside_others_ends_them_all() -> None:
    engine = Engine("HTTP 400")

    async def whole() -> tuple[Finding, int]:
        found = await run(engine, 4, 48)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return found, engine.at_once

    refused = Finding("not measured", "a test prompt was refused (HTTP 400); see vLLM's log")
    assert asyncio.run(whole()) == (refused, 0)


def test_agreement_at_its_floor_is_enough() -> None:
    half = {prompt: replace(answer, tokens=(*answer.tokens[:24], *[7] * 24)) for prompt, answer in SOUND.items()}
    assert judged(company=half, floor=0.5).problem == ""
    assert judged(company=half, floor=0.51).problem


def test_what_two_prompts_show_is_no_warning_and_the_first_of_them_is_named() -> None:
    odd = {ENGLISH[-1]: replace(SOUND[ENGLISH[-1]], text="a\ufffdb")}
    shown = judged(company=garbled(*ENGLISH[1:3]) | odd)
    assert "for one prompt only" not in shown.problem
    assert f"({ENGLISH[1].kind}: 100% of its letters" in shown.problem
    assert shown.problem.count(" of 20 answers") == 1


def test_a_sign_that_is_left_out_is_not_looked_for():
    assert judged(company=garbled(*ENGLISH), signs=("repetition", "logprobs")).problem == ""


def test_a_refused_prompt_is_a_problem_and_a_server_that_is_gone_is_unreachable(answering):
    url = answering(503, "no")
    assert "HTTP 503" in with_client(url, lambda engine: run(engine, 4, 8)).problem
    with pytest.raises(Refused):
        with_client(url, canary.one_token)
    with pytest.raises(Unreachable):
        with_client("http://127.0.0.1:1", lambda engine: run(engine, 4, 8))


@pytest.mark.slow
def test_a_sound_real_engine_passes_at_four_requests_at_once(vllm: Demo):
    """The demo's model knows one answer only, which the profile `demo` allows for, and the other signs see."""
    demo = [name for name in NAMES if name not in ("known-answers", "prompt-independence")]
    found = with_client(vllm.endpoint.url, lambda engine: run(engine, 4, 48, demo))
    assert (found.problem, found.warning) == ("", "")
    whole = with_client(vllm.endpoint.url, lambda engine: run(engine, 4, 48))
    assert "prompt-independence: 10 prompts have answers that begin alike" in whole.problem
    assert found.detail.startswith("100% of tokens agree between answers alone and 4 at once")


@pytest.mark.slow
def test_more_requests_at_once_than_there_are_prompts_are_sent(vllm: Demo):
    async def counted(engine: VllmClient) -> int:
        before = (await engine.settled_counters()).finished
        assert (await run(engine, 25, 4)).problem == ""
        return (await engine.settled_counters()).finished - before

    assert with_client(vllm.endpoint.url, counted) == len(prompts()) + 25


@pytest.mark.slow
def test_one_token_is_generated_by_the_idle_canary(vllm: Demo):
    async def counted(engine: VllmClient) -> int:
        before = (await engine.settled_counters()).generated
        await canary.one_token(engine)
        return (await engine.settled_counters()).generated - before

    assert with_client(vllm.endpoint.url, counted) == 1


@pytest.mark.slow
def test_a_real_engine_with_nan_logits_is_garbled(broken: ServeProcess):
    problem = with_client(broken.endpoint.url, lambda engine: run(engine, 4, 8)).problem
    assert "logprobs in 20 of 20 answers (prose: its log-probabilities are not numbers (NaN logits))" in problem
