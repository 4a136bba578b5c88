"""Questions with known answers, and how answers differ."""

from __future__ import annotations

import math

import pytest

from dsv4_serve.entrypoint.client.answers import NOT_A_NUMBER, Completion
from dsv4_serve.entrypoint.qualify import known
from tests.entrypoint.qualify.engine import ANSWER, REACH


def test_the_last_token_decides_an_ordinary_question() -> None:
    questions = known.questions(ANSWER, [5, 130, 9], [16, 4], [*REACH.queries.values()])
    assert [len(one.prompt) for one in questions] == [5, 130, 9]
    assert [len(one.answer) for one in questions] == [16, 4, 16]
    for one in questions:
        assert list(one.answer) == ANSWER.continuation(one.prompt[-1], len(one.answer))
        assert not {*REACH.queries.values()} & {*one.prompt}
    assert questions == known.questions(ANSWER, [5, 130, 9], [16, 4], [*REACH.queries.values()])


@pytest.mark.parametrize("length", [300, 500, 2452, 500_000])
def test_one_key_that_no_window_reaches_decides_a_far_question(length: int) -> None:
    questions = known.far(ANSWER, REACH, length, 8)
    assert [question.prompt[-1] for question in questions] == [REACH.queries[ratio] for ratio in (4, 4, 128)]
    for question in questions:
        places = [place for place, token in enumerate(question.prompt) if token in REACH.keys]
        assert len(question.prompt) == length
        assert len(places) == 1
        assert 1 <= places[0] < length - 128
        assert list(question.answer) == ANSWER.continuation(question.prompt[places[0]], 8)
    assert len({question.answer for question in questions}) == 3


def test_a_key_stands_at_the_start_and_before_the_last_blocks() -> None:
    """With 2,452 tokens and 512 of 613 blocks chosen, one that chooses the first or the last misses one of the two."""
    first, second, _ = known.far(ANSWER, REACH, 2452, 8)
    blocks = [next(n for n, token in enumerate(one.prompt) if token in REACH.keys) // 4 for one in (first, second)]
    assert blocks[0] < 613 - 512
    assert blocks[1] >= 512


QUESTION = known.Question((5,), (7, 8, 9), "1 token")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Completion("", (7, 8, 9)), ""),
        (Completion("", (7, 4, 9)), "1 token: token 2 of 3 is wrong"),
        (Completion("", (7, 8)), "1 token: token 3 of 3 is wrong"),
        (Completion("", (7, 8, 9, 3)), "1 token: token 4 of 3 is wrong"),
        (Completion("", (), broken=NOT_A_NUMBER), f"1 token: {NOT_A_NUMBER}"),
    ],
)
def test_an_answer_is_wrong_from_its_first_wrong_token(answer: Completion, text: str) -> None:
    assert known.wrong(QUESTION, answer) == text


def test_a_difference_is_the_first_other_token_and_the_largest_logprob_before_it() -> None:
    one = Completion("", (7, 8, 9), (-0.1, -0.2, -0.3))
    same = known.difference(one, Completion("", (7, 8, 9), (-0.1, -0.25, -0.3)))
    assert same.token is None
    assert math.isclose(same.logprob, 0.05)
    assert known.difference(one, Completion("", (7, 4, 9), (-0.1, -9.0, -0.3))) == known.Difference(1, 0.0)
    assert known.difference(one, Completion("", (7, 8), (-0.1, -0.2))).token == 2
