"""Writing systems of letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.healthcheck.scripts import script, unexplained

ENGLISH = "the lamp was lit as on every other evening of that winter, and the keeper went down to the pier. "


@given(st.characters(codec="utf-8"))
def test_every_character_has_a_script_or_none(character):
    assert script(character).isupper() or script(character) == ""


@pytest.mark.parametrize("quote", ["«%s»", "»%s«", "“%s”", "„%s“", '"%s"', "「%s」", "《%s》"])
def test_a_quotation_may_be_in_another_script(quote):
    assert unexplained("of them was " + quote % "Белая Звезда и ещё одна", "LATIN") == ""
    assert unexplained("of them was Белая Звезда и ещё одна", "LATIN") == "68% of its letters are Cyrillic"


@pytest.mark.parametrize("comment", ["# %s\n", "x = 1  # %s\n", "// %s\n", "x = 1; // %s\n"])
def test_a_comment_may_be_in_another_script(comment):
    assert unexplained("return x\n" + comment % "如果窗口大于列表长度", "LATIN") == ""
    assert unexplained("return x\n如果窗口大于列表长度\n", "LATIN")


@pytest.mark.parametrize("glued", ["keeperола lampола", "keeperולם lampולם", "keeperกร lampกร"])
def test_words_that_change_their_script_are_wrong_even_if_they_are_few(glued):
    assert unexplained(ENGLISH * 3 + glued, "LATIN") == "2 of its words change their writing system"
    assert unexplained(ENGLISH * 3 + glued.split()[0], "LATIN") == ""


@pytest.mark.parametrize("text", ["API는 DeepSeek는 서버입니다", "小明说API和Python都不会"])
def test_scripts_that_are_written_without_blanks_may_touch_latin_names(text):
    assert unexplained(text, "HANGUL" if "는" in text else "CJK") == ""


def test_a_fifth_of_the_letters_may_be_names_and_no_more():
    assert unexplained("lamp ж", "LATIN") == ""
    assert unexplained("boy ж", "LATIN") == "25% of its letters are Cyrillic"
    assert unexplained("ж", "LATIN") == "100% of its letters are Cyrillic"
