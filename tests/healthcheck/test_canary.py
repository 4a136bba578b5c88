"""The corruption canary: what the answers mean, and real vLLM, a sound one and one with NaN logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.client.answers import Completion
from dsv4_serve.entrypoint.client.errors import Refused, Unreachable
from dsv4_serve.entrypoint.client.local_replica import ServeProcess
from dsv4_serve.entrypoint.client.vllm import VllmClient
from dsv4_serve.healthcheck import canary
from dsv4_serve.healthcheck.garble import SIGNS
from dsv4_serve.healthcheck.prompts import prompts
from dsv4_serve.healthcheck.state import Finding
from tests.support.client import with_client

TOKENS = st.lists(st.integers(0, 3), max_size=20).map(tuple)
SOUND = {prompt: Completion("and so it went on", tuple(range(48))) for prompt in prompts()}
ENGLISH = [prompt for prompt in prompts() if prompt.script == "LATIN"]


def judged(company: dict | None = None, alone: dict | None = None, signs=tuple(SIGNS), floor: float = 0.5) -> Finding:
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
        " no sign of garbling (script-mix, repetition, logprobs, replacement)"
    )


def test_answers_that_differ_from_the_start_under_concurrency_are_a_problem():
    other = {prompt: replace(answer, tokens=answer.tokens[::-1]) for prompt, answer in SOUND.items()}
    assert "concurrent requests change the answers" in judged(company=other).problem
    few = {prompt: other[prompt] for prompt in ENGLISH[:4]}
    assert judged(company=few).problem == ""
    assert judged(company=few, floor=0.7).problem


def test_one_answer_garbled_under_concurrency_is_named_with_its_sign_and_kind_but_not_quoted():
    garbled = {ENGLISH[0]: replace(SOUND[ENGLISH[0]], text="которого не было")}
    problem = judged(company=garbled).problem
    assert "script-mix in 1 of 20 answers, none of them decoded alone (prose: 100% of its letters" in problem
    assert "которого" not in problem
    assert "decoded alone" not in judged(alone=garbled).problem


def test_a_sign_that_is_left_out_is_not_looked_for():
    garbled = {ENGLISH[0]: replace(SOUND[ENGLISH[0]], text="которого не было")}
    assert judged(company=garbled, signs=("repetition", "logprobs")).problem == ""


def test_one_looping_prompt_is_tolerated_and_two_are_a_problem():
    loops = {prompt: replace(SOUND[prompt], tokens=(7,) * 48) for prompt in ENGLISH[:2]}
    assert judged(alone=dict(list(loops.items())[:1]), company=dict(list(loops.items())[:1])).problem == ""
    assert "repetition in 4 of 20 answers" in judged(alone=loops, company=loops).problem


def test_a_refused_prompt_is_a_problem_and_a_server_that_is_gone_is_unreachable(answering):
    url = answering(503, "no")
    assert "HTTP 503" in with_client(url, lambda engine: canary.run(engine, 4, 8)).problem
    with pytest.raises(Refused):
        with_client(url, canary.one_token)
    with pytest.raises(Unreachable):
        with_client("http://127.0.0.1:1", lambda engine: canary.run(engine, 4, 8))


@pytest.mark.slow
def test_a_sound_real_engine_passes_at_four_requests_at_once(vllm: ServeProcess):
    found = with_client(vllm.endpoint.url, lambda engine: canary.run(engine, 4, 48))
    assert found.problem == ""
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
