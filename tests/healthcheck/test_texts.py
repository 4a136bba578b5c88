"""Texts of sound and of garbled models, as they came and varied: which signs they show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.client.answers import Completion
from dsv4_serve.healthcheck.garble import SIGNS
from dsv4_serve.healthcheck.prompts import Prompt, prompts

FOLDER = Path(__file__).with_name("texts")
HEALTHY = json.loads((FOLDER / "healthy.json").read_text())
GARBLED = json.loads((FOLDER / "garbled.json").read_text())
PROSE = next(case["text"] for case in HEALTHY if case["what"] == "prose")
SEEN = [case for case in GARBLED if case["signs"]]


def completion(text: str) -> Completion:
    """An answer whose tokens are words, and single characters where there are no blanks."""
    words = re.findall(r"[a-zA-Z]+|\s|[^\sa-zA-Z]", text)
    return Completion(text, tuple(map(hash, words)))


def asked(case: dict[str, Any]) -> list[Prompt]:
    """The prompts that may have led to a text."""
    return [each for each in prompts() if (each.kind, each.script) == (case["prompt"], case["script"])]


def signs(prompt: Prompt, text: str) -> set[str]:
    return {name for name, find in SIGNS.items() if find(prompt, completion(text))}


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case["what"])
def test_a_healthy_text_shows_no_sign(case):
    found = [signs(prompt, case["text"]) for prompt in asked(case)]
    assert min(found, key=len) == set()
    assert set.union(*found) <= {"known-answers"}  # it answers one of the prompts, not the others


@pytest.mark.parametrize("case", GARBLED, ids=lambda case: case["what"])
def test_a_garbled_text_shows_what_is_known_of_it(case):
    """Texts without a sign are out of reach: well-formed words that only their meaning gives away."""
    assert signs(asked(case)[0], case["text"]) - {"known-answers"} == set(case["signs"]) - {"known-answers"}
    assert "known-answers" not in case["signs"] or "known-answers" in signs(asked(case)[0], case["text"])


@given(st.sampled_from(HEALTHY), st.sampled_from(HEALTHY))
def test_two_healthy_texts_after_one_another_are_healthy(one, other):
    if one["script"] == other["script"]:
        prompt = Prompt("any", one["script"], "")
        assert signs(prompt, f"{one['text']}\n\n{PROSE}\n\n{other['text']}\n\nEnd.") <= {"script-mix"}
        if one["script"] == "LATIN" and not re.search(r"[\u0400-\u04ff\u4e00-\u9fff]", one["text"] + other["text"]):
            assert signs(prompt, f"{one['text']}\n\n{PROSE}\n\n{other['text']}\n\nEnd.") == set()


@given(st.sampled_from(HEALTHY), st.integers(0, 400))
def test_a_healthy_text_that_is_cut_shows_no_new_sign_but_that_of_an_open_quotation(case, at):
    cut = signs(Prompt("any", case["script"], ""), case["text"][: max(1, at)])
    assert cut <= {"script-mix", "repetition", "empty"}
    assert "special-tokens" not in cut


@given(
    st.sampled_from([case for case in SEEN if "special-tokens" in case["signs"]]),
    st.integers(0, len(PROSE)),
)
def test_special_tokens_are_seen_wherever_they_are(case, at):
    assert "special-tokens" in signs(Prompt("any", "LATIN", ""), PROSE[:at] + case["text"] + PROSE[at:])


@given(st.sampled_from("ולםאгрקสวไ한국"), st.sampled_from("กขคगजम"), st.integers(1, 4), st.integers(0, len(PROSE)))
def test_stray_letters_of_two_scripts_are_seen_wherever_they_are(one, other, count, at):
    if {one, other} & set("สวไא"):
        return
    text = PROSE[:at] + one * count + PROSE[at:] + " " + other * count
    assert "script-mix" in signs(Prompt("any", "LATIN", ""), text)


@given(
    st.text("abcdefghij klmnop", min_size=9, max_size=90).filter(lambda unit: len(set(unit)) > 4), st.integers(0, 60)
)
def test_a_loop_of_a_whole_sentence_is_seen_after_any_start(unit, start):
    assert "repetition" in signs(Prompt("any", "LATIN", ""), PROSE[:start] + (unit + ". ") * 12)
