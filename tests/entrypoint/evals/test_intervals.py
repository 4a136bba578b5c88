"""Shares: their intervals against figures of the literature, and the four verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.evals.intervals import MARGIN, VERDICTS, Share, chance, difference, verdict


@st.composite
def shares(draw: st.DrawFn) -> Share:
    total = draw(st.integers(1, 20000))
    return Share(draw(st.integers(0, total)), total)


def test_wilsons_interval_is_that_of_newcombe_1998() -> None:
    assert Share(81, 263).interval() == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Share(0, 20).interval() == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_it_is_that_of_the_publisher_of_pro() -> None:
    """The card gives [0.9547, 0.9744] for 1274 of 1319."""
    assert Share(1274, 1319).interval() == pytest.approx((0.9547, 0.9744), abs=1e-4)


def test_the_interval_of_a_difference_is_that_of_newcombe_1998() -> None:
    assert difference(Share(56, 70), Share(48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        (Share(1236, 1319), "same"),
        (Share(1100, 1319), "worse"),
        (Share(1280, 1319), "better"),
        (Share(47, 50), "too few samples to tell"),
        (Share(30, 50), "worse"),
    ],
)
def test_each_verdict_can_be_reached(ours: Share, word: str) -> None:
    assert verdict(ours, Share(1236, 1319)) == word


def test_thirty_problems_cannot_tell_two_answers_apart() -> None:
    """AIME: 27 and 29 of 30 were measured on one artifact, on TP=2 and TP=4."""
    assert verdict(Share(27, 30), Share(29, 30)) == "too few samples to tell"


def test_the_tea_of_fisher_1935() -> None:
    assert chance(Share(3, 4), Share(1, 4)) == pytest.approx(0.4857, abs=5e-5)


def test_two_answers_say_nothing_whatever_they_are() -> None:
    assert verdict(Share(1, 2), Share(29, 30)) == "too few samples to tell"


@given(shares())
def test_an_interval_holds_its_share(one: Share) -> None:
    low, high = one.interval()
    assert 0 <= low <= one.value + 1e-9
    assert one.value - 1e-9 <= high <= 1


@given(shares(), shares())
def test_a_verdict_is_reversed_when_its_sides_are_swapped(one: Share, other: Share) -> None:
    turned = {"better": "worse", "worse": "better"}
    found = verdict(one, other)
    assert found in VERDICTS
    assert verdict(other, one) == turned.get(found, found)
    if found == "same":
        assert abs(one.value - other.value) < MARGIN


@pytest.mark.parametrize(("correct", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_what_is_no_share_is_refused(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        Share(correct, total)
