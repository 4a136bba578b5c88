"""`each`: many cases in one test, none of which hides another."""

from __future__ import annotations

import inspect

import pytest

from tests.support.each import each


def test_every_case_that_fails_is_named_with_its_reason_and_no_other() -> None:
    seen = []

    @each("first, second", [(1, 2), (2, 1), (3, 4), (5, 0)])
    def rises(first: int, second: int) -> None:
        seen.append(first)
        if not second:
            pytest.fail("no second")
        assert first < second, "it falls"

    with pytest.raises(AssertionError) as caught:
        rises()
    assert seen == [1, 2, 3, 5]
    assert str(caught.value).splitlines()[0] == "2 of 4 cases failed"
    assert "[(2, 1)] AssertionError: it falls" in str(caught.value)
    assert "[(5, 0)] Failed: no second" in str(caught.value)
    assert "(3, 4)" not in str(caught.value)


def test_an_error_is_a_failure_too_and_a_case_has_a_name() -> None:
    @each("number", [0, 1], ids=lambda number: f"number {number}")
    def divides(number: int) -> None:
        assert 1 / number

    with pytest.raises(AssertionError, match=r"\[number 0\] ZeroDivisionError"):
        divides()


def test_no_case_is_a_failure() -> None:
    @each("name", [])
    def never(name: str) -> None:
        raise AssertionError(name)

    with pytest.raises(AssertionError, match="there is no case"):
        never()


def test_other_fixtures_are_asked_for_and_reach_every_case(tmp_path: object) -> None:
    got = []

    @each("name", ["a", "b"])
    def takes(tmp_path: object, name: str) -> None:
        got.append((name, tmp_path))

    assert list(inspect.signature(takes).parameters) == ["tmp_path"]
    takes(tmp_path=tmp_path)
    assert got == [("a", tmp_path), ("b", tmp_path)]


def test_a_skip_stays_one() -> None:
    @each("name", ["a"])
    def skips(name: str) -> None:
        pytest.skip(name)

    with pytest.raises(pytest.skip.Exception, match="a"):
        skips()
