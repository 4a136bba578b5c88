"""Signs of garbled answers, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.client.answers import Completion
from dsv4_serve.healthcheck import garble
from dsv4_serve.healthcheck.garble import LOOP_TOKENS, SIGNS, script
from dsv4_serve.healthcheck.prompts import Prompt, prompts

ENGLISH = Prompt("prose", "LATIN", "Once")
CHINESE = Prompt("other languages", "CJK", "春天")


def said(text: str) -> Completion:
    return Completion(text, tuple(range(len(text))))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (ENGLISH, "of the lamps would not burn, and naïve Zoë in Łódź knew why."),
        (ENGLISH, "Let ε > 0 and α = Σ βᵢ, so that |f(x)| ≤ ℝ ∈ 5 µm × 10⁻³ ﬁne ＡＢＣ 𝐱"),
        (ENGLISH, "low += mid + 1 // 😀 → ok"),
        (ENGLISH, "he said 你好 and went on with the story as if nothing had happened at all"),
        (ENGLISH, ""),
        (CHINESE, "几只小鸭子在水里游来游去。"),
        (CHINESE, "東京タワーはとてもきれいです。DeepSeek 很好，π≈3.14"),
    ],
)
def test_names_code_mathematics_and_the_prompts_own_script_are_no_script_mix(prompt, text):
    assert garble.script_mix(prompt, said(text)) == ""


@pytest.mark.parametrize(
    ("prompt", "text", "named"),
    [
        (ENGLISH, "of the 灯塔守护者 他 是 一个", "Cjk"),
        (ENGLISH, "the ship которого не было видно", "Cyrillic"),
        (ENGLISH, "the lamp was lit as every other evening, и then 的 went out", "Cjk and Cyrillic"),
        (CHINESE, "河水 которого не было видно", "Cyrillic"),
    ],
)
def test_letters_that_nothing_explains_are_a_script_mix_and_are_named(prompt, text, named):
    assert garble.script_mix(prompt, said(text)).endswith(f"of its letters are {named}")


@given(st.characters(codec="utf-8"))
def test_every_character_has_a_script_or_none(character):
    assert script(character).isupper() or script(character) == ""


@given(
    start=st.lists(st.integers(0, 9), max_size=30),
    unit=st.lists(st.integers(0, 9), min_size=1, max_size=LOOP_TOKENS // 4),
    length=st.integers(LOOP_TOKENS, 96),
)
def test_any_unit_that_fills_the_last_half_is_a_repetition(start, unit, length):
    start = start[: length // 2]
    tokens = (start + unit * length)[:length]
    assert garble.repetition(ENGLISH, Completion("", tuple(tokens)))


@given(st.lists(st.integers(0, 10**5), min_size=LOOP_TOKENS, max_size=96, unique=True))
def test_tokens_that_differ_are_no_repetition(tokens):
    assert garble.repetition(ENGLISH, Completion("", tuple(tokens))) == ""


def test_a_short_answer_and_one_to_a_prompt_that_asks_for_it_may_repeat():
    assert garble.repetition(ENGLISH, Completion("", (5,) * (LOOP_TOKENS - 1))) == ""
    assert garble.repetition(Prompt("lists", "LATIN", "la la", repeats=True), Completion("", (5,) * 64)) == ""
    assert garble.repetition(ENGLISH, Completion("", (5,) * 64)) == "its last 32 tokens are one sequence of 1, repeated"


@pytest.mark.parametrize(
    ("text", "found"), [("\ufffd" * 8, "100%"), ("ab\ufffdcd", "20%"), ("a" * 20 + "\ufffd", ""), ("", "")]
)
def test_bytes_that_are_no_text_are_a_sign_but_for_a_cut_last_one(text, found):
    assert garble.replacement(ENGLISH, said(text)) == (f"{found} of its characters are not text" if found else "")


def test_logprobs_that_are_not_numbers_are_a_sign():
    assert garble.logprobs(ENGLISH, Completion("", (), broken="NaN")) == "NaN"
    assert garble.logprobs(ENGLISH, Completion("a", (1,), (-0.1,))) == ""


def test_no_prompt_shows_a_sign_itself():
    for prompt in prompts():
        assert [name for name, sign in SIGNS.items() if sign.find(prompt, said(prompt.text))] == []


def test_there_are_prompts_of_five_kinds_two_of_each():
    kinds = [prompt.kind for prompt in prompts()]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("prose", "code", "arithmetic", "lists", "other languages"), 2
    )
