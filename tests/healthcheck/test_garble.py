"""Signs of garbled answers, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.client.answers import Completion
from dsv4_serve.healthcheck import garble
from dsv4_serve.healthcheck.garble import LOOP_TOKENS, SIGNS
from dsv4_serve.healthcheck.prompts import Prompt, prompts

ENGLISH = Prompt("prose", "LATIN", "Once")
CHINESE = Prompt("other languages", "CJK", "春天")


def long(text: str) -> Completion:
    """An answer of many tokens, whatever its text."""
    return Completion(text, tuple(range(48)))


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


@given(
    start=st.text("abcdefg ", max_size=40),
    unit=st.text("abcdefghijklmnop", min_size=2, max_size=20).filter(lambda unit: len(set(unit)) > 1),
    copies=st.integers(5, 40),
    cut=st.integers(0, 20),
)
def test_any_unit_of_letters_that_fills_the_last_half_is_a_repetition(start, unit, copies, cut):
    text = start[: len(unit) * copies] + (unit * (copies + 20))[: -cut or None]
    assert garble.repetition(ENGLISH, long(text)).endswith("repeated")


@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=20, max_size=26, unique=True))
def test_letters_that_differ_are_no_repetition(letters):
    assert garble.repetition(ENGLISH, long("".join(letters))) == ""


@given(st.text("ab", max_size=40))
def test_the_period_is_the_shortest_unit(text):
    shortest = next((n for n in range(1, len(text)) if all(map(str.__eq__, text, text[n:]))), len(text))
    assert garble.period(text) == shortest


def test_a_short_answer_and_one_to_a_prompt_that_asks_for_it_may_repeat():
    assert garble.repetition(ENGLISH, Completion("la " * 40, (5,) * (LOOP_TOKENS - 1))) == ""
    assert garble.repetition(Prompt("lists", "LATIN", "la la", repeats=True), long("la " * 40)) == ""
    said_of = "its last 60 characters are one sequence of 3, repeated"
    assert garble.repetition(ENGLISH, Completion("la " * 40, (5,) * LOOP_TOKENS)) == said_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *[("\ufffd" * 8, 7), ("ab\ufffdcd", 1), ("a" * 200 + "\ufffd", 0), ("a\ufffd" * 2, 1), ("", 0)],
        *[("a\0\x1b[1m", 2), ("\ue000 \U000e0fff", 2), ("a\tb\r\n\f", 0), ("\u200d\ufeff", 0)],
    ],
)
def test_bytes_that_are_no_text_are_a_sign_but_for_a_cut_last_one(text, found):
    assert garble.replacement(ENGLISH, said(text)) == (f"{found} of its characters are not text" if found else "")


def test_logprobs_that_are_not_numbers_are_a_sign():
    assert garble.logprobs(ENGLISH, Completion("", (), broken="NaN")) == "NaN"
    assert garble.logprobs(ENGLISH, Completion("a", (1,), (-0.1,))) == ""


def test_no_prompt_shows_a_sign_itself():
    for prompt in prompts():
        assert [
            name for name, sign in SIGNS.items() if sign(prompt, said(prompt.text)) and name != "known-answers"
        ] == []


def test_there_are_prompts_of_five_kinds_two_of_each():
    kinds = [prompt.kind for prompt in prompts()]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("prose", "code", "arithmetic", "lists", "other languages"), 2
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a <\uff5cbegin\u2581of\u2581sentence\uff5c> b", 1),
        ("<|begin_of_text|><|eot_id|>", 2),
        ("<\uff5cDSML\uff5cinvoke name='x'></\uff5cDSML\uff5cinvoke>", 2),
        ("<|>\n<|>\n<|>\n", 1),
        ("let f x = x |> g <| h  // F#", 0),
        ("a <b> | <c>, a < b || c > d, <|> alone", 0),
    ],
)
def test_special_tokens_are_found_in_the_text_and_operators_are_none(text, count):
    assert garble.special_tokens(ENGLISH, said(text)) == (f"{count} special tokens are in it" if count else "")


def test_an_answer_without_a_character_is_empty_unless_its_numbers_are_broken():
    for text in (" \n", "\u200b\u200d", "\0\0"):
        assert garble.empty(ENGLISH, said(text)) == "it is empty"
    assert garble.empty(ENGLISH, said("a")) == ""
    assert garble.empty(ENGLISH, Completion("", (), broken="NaN")) == ""


def test_only_a_long_answer_to_a_prompt_with_a_known_one_can_be_wrong():
    train = Prompt("arithmetic", "LATIN", "9:40", expects=r"\b3 ?h")
    assert garble.known_answer(train, long("it is 4 h")) == "it is wrong"
    assert garble.known_answer(train, long("it is 3 h")) == ""
    assert garble.known_answer(train, Completion("to", (1,))) == ""
    assert garble.known_answer(ENGLISH, long("it is 4 h")) == ""


def test_answers_that_begin_alike_for_two_kinds_of_prompts_do_not_depend_on_them():
    other = Prompt("code", "LATIN", "def f")
    same, differs = Completion("a", (1,) * 9), Completion("b", (1,) * 7 + (2,) * 2)
    assert garble.independent([(ENGLISH, same), (other, same), (CHINESE, differs)]) == [ENGLISH, other]
    assert garble.independent([(ENGLISH, same), (Prompt("prose", "LATIN", "Bread"), same)]) == []
    assert garble.independent([(ENGLISH, Completion("a", (1,) * 7)), (other, Completion("a", (1,) * 7))]) == []


def tokens(text: str, count: int) -> Completion:
    return Completion(text, tuple(range(count)))


def test_a_loop_shows_from_32_tokens_on():
    assert garble.repetition(ENGLISH, tokens("la la " * 8, 31)) == ""
    assert garble.repetition(ENGLISH, tokens("la la " * 8, 32))


def test_two_copies_of_a_unit_in_the_last_half_are_a_loop():
    unit = "abcdefghij"
    assert garble.repetition(ENGLISH, long("0123456789zyxwvutsrq" + unit * 2)).endswith("one sequence of 10, repeated")
    assert garble.repetition(ENGLISH, long("0123456789zyxwvutsr" + unit * 2 + "k")) == ""


def test_three_words_that_double_their_endings_are_a_sign_and_two_are_none():
    two = "the keeperper went out to the lighthousehouse and then came home again"
    assert garble.repetition(ENGLISH, long(two)) == ""
    assert garble.repetition(ENGLISH, long(two + " eveninging")) == "3 of its words double their endings"


def test_rules_and_leaders_of_any_of_their_characters_are_no_loop():
    assert garble.repetition(ENGLISH, long("-=_.*#~|·…—– \t\n" * 8)) == ""


@pytest.mark.parametrize(("unit", "loops"), [("abc12 ", False), ("abcd12 ", True), ("12 ", False), ("?! ", True)])
def test_a_unit_is_a_loop_when_more_than_three_fifths_of_it_are_letters_or_it_has_no_digit(unit, loops):
    assert bool(garble.repetition(ENGLISH, long(unit * 20))) is loops


def test_a_wrong_answer_shows_from_32_tokens_on_and_only_where_its_numbers_are_sound():
    train = Prompt("arithmetic", "LATIN", "A train", expects="3:25")
    assert garble.known_answer(train, tokens("no idea", 31)) == ""
    assert garble.known_answer(train, tokens("no idea", 32)) == "it is wrong"
    assert garble.known_answer(train, tokens("at 3:25", 32)) == ""
    assert garble.known_answer(train, Completion("", tuple(range(32)), broken="NaN")) == ""


def test_answers_are_alike_from_eight_equal_tokens_on():
    code = Prompt("code", "LATIN", "def")
    assert garble.independent([(ENGLISH, tokens("", 8)), (code, tokens("", 9))]) == [ENGLISH, code]
    assert garble.independent([(ENGLISH, tokens("", 7)), (code, tokens("", 7))]) == []
    other = Completion("", (*range(7), 99))
    assert garble.independent([(ENGLISH, tokens("", 8)), (code, other)]) == []
