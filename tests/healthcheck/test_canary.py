"""The corruption canary: what the answers mean, and real vLLM, a sound one and one with NaN logits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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

TOKENS = st.lists(st.integers(0, 3), max_size=20).map(tuple)
RIGHT = "and so it went on for 3 h to Earth at 4k"
SOUND = {
    prompt: Completion(RIGHT, (index, *range(100, 147)), finish="length") for index, prompt in enumerate(prompts())
}
ENGLISH = [prompt for prompt in prompts() if prompt.script == "LATIN"]


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

    asyncio.run(canary.run(Client(), concurrency, tokens))  # type: ignore[arg-type]
    assert sum(asked) == canary.cost(concurrency, tokens)
    assert sorted(set(asked)) == ([tokens, 4 * tokens] if tokens >= 32 else [tokens])


def test_a_sign_that_is_left_out_is_not_looked_for():
    assert judged(company=garbled(*ENGLISH), signs=("repetition", "logprobs")).problem == ""


def test_a_refused_prompt_is_a_problem_and_a_server_that_is_gone_is_unreachable(answering):
    url = answering(503, "no")
    assert "HTTP 503" in with_client(url, lambda engine: canary.run(engine, 4, 8)).problem
    with pytest.raises(Refused):
        with_client(url, canary.one_token)
    with pytest.raises(Unreachable):
        with_client("http://127.0.0.1:1", lambda engine: canary.run(engine, 4, 8))


@pytest.mark.slow
def test_a_sound_real_engine_passes_at_four_requests_at_once(vllm: ServeProcess):
    """The demo's model knows one answer only, which the profile `demo` allows for, and the other signs see."""
    demo = [name for name in NAMES if name not in ("known-answers", "prompt-independence")]
    found = with_client(vllm.endpoint.url, lambda engine: canary.run(engine, 4, 48, demo))
    assert (found.problem, found.warning) == ("", "")
    whole = with_client(vllm.endpoint.url, lambda engine: canary.run(engine, 4, 48))
    assert "prompt-independence: 10 prompts have answers that begin alike" in whole.problem
    assert found.detail.startswith("100% of tokens agree between answers alone and 4 at once")


@pytest.mark.slow
def test_more_requests_at_once_than_there_are_prompts_are_sent(vllm: ServeProcess):
    async def counted(engine: VllmClient) -> int:
        before = (await engine.settled_counters()).finished
        assert (await canary.run(engine, 25, 4)).problem == ""
        return (await engine.settled_counters()).finished - before

    assert with_client(vllm.endpoint.url, counted) == len(prompts()) + 25


@pytest.mark.slow
def test_one_token_is_generated_by_the_idle_canary(vllm: ServeProcess):
    async def counted(engine: VllmClient) -> int:
        before = (await engine.settled_counters()).generated
        await canary.one_token(engine)
        return (await engine.settled_counters()).generated - before

    assert with_client(vllm.endpoint.url, counted) == 1


@pytest.mark.slow
def test_a_real_engine_with_nan_logits_is_garbled(broken: ServeProcess):
    problem = with_client(broken.endpoint.url, lambda engine: canary.run(engine, 4, 8)).problem
    assert "logprobs in 20 of 20 answers (prose: its log-probabilities are not numbers (NaN logits))" in problem
