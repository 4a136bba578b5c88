"""How many starts and how much time a decision takes, told before they are made."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4_serve.entrypoint.tune import decide, forecast
from dsv4_serve.entrypoint.tune.decide import PLAN, TuneTrial
from tests.support.examples import examples


def never(_first: str, _second: str) -> bool:
    return False


def always(_first: str, _second: str) -> bool:
    return True


@pytest.mark.parametrize(("count", "starts"), [(0, 1), (1, 5), (2, 6), (3, 7), (6, 12)])
def test_before_the_first_start_a_decision_takes_one_for_each_candidate_and_those_that_confirm(
    count: int, starts: int
) -> None:
    found = forecast.until_decided(list("abcdef")[:count], [], never)
    assert (found.starts, str(found)) == (starts, f"about {starts} start{'s' * (starts > 1)}")


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 6), st.integers(0, 5), st.floats(1.5, 4), st.booleans())
def test_it_is_the_number_of_starts_after_which_a_large_gain_wins_where_there_is_no_noise(
    count: int, which: int, times: float, clash: bool
) -> None:
    names, trials = list("abcdef")[:count], list[TuneTrial]()
    clashes = always if clash else never
    fast = names[which % count]
    expected = forecast.until_decided(names, [], clashes).starts
    while not (now := decide.standing(names, trials, clashes)).best:
        assert now.next is not None
        trials.append(TuneTrial(now.next, {1: 10.0 * (times if fast in now.next else 1.0)}))
        if len(trials) > 1 + len(names) // 2 + len(names):
            assert forecast.until_decided(names, trials, clashes).starts == expected - len(trials)
    assert len(trials) == expected


def test_with_little_time_left_it_counts_on_what_looks_faster_already() -> None:
    names = list("abcdef")
    trials = [TuneTrial(setup, {1: speed}, seconds=100) for setup, speed in ((PLAN, 10.0), (("a",), 20.0))]
    assert forecast.until_decided(names, trials, never, 100_000).starts == 10
    assert forecast.until_decided(names, trials, never, 250).starts == 3


def test_a_first_start_may_have_compiled_kernels_and_later_ones_tell() -> None:
    first = TuneTrial(PLAN, {1: 10.0}, seconds=400)
    found = forecast.until_decided(["a"], [first], never)
    assert (found.starts, found.fewest, found.most, found.seconds) == (4, 100, 400, 400)
    assert str(found) == "about 4 starts, up to 27 minutes"
    found = forecast.until_decided(["a"], [first, TuneTrial(("a",), {1: 15.0}, seconds=150)], never)
    assert (found.starts, found.fewest, found.most, found.seconds) == (3, 150, 150, 450)
    again = [first, TuneTrial(("a",), {1: 15.0}, seconds=150), TuneTrial(PLAN, {1: 10.0}, seconds=170)]
    assert forecast.until_decided(["a"], again, never).fewest == 170, "the longest of the others"
    failed = TuneTrial(("a",), failed="it crashed", seconds=900)
    assert forecast.until_decided(["a", "b"], [first, failed], never).most == 400


def test_noise_that_is_known_takes_more_starts() -> None:
    """The first four starts of the fourth run on H200 (docs/how-to/tune.md): three more decided."""
    speeds = ((PLAN, 817.3), (("a",), 1212.3), (("b",), 875.5), (PLAN, 653.9))
    trials = [TuneTrial(setup, {1: speed}, seconds=150) for setup, speed in speeds]
    assert forecast.until_decided(["a", "b"], trials, always).starts == 3
    steady = [*trials[:3], TuneTrial(PLAN, {1: 817.3}, seconds=150)]
    assert forecast.until_decided(["a", "b"], steady, always).starts == 2


def test_further_starts_are_imagined_like_those_that_decide() -> None:
    steady = [TuneTrial(("other",), {1: 10.0})] * 8
    trials = [TuneTrial(PLAN, {1: 10.0})] * 2 + [TuneTrial(("a",), {1: speed}) for speed in (10.2, 11.6)]
    assert forecast.until_decided(["a"], [*steady, *trials], never).starts == 1, "as its second, not as its first"


def test_the_hours_that_are_named_are_enough_for_every_candidate_and_one_decision() -> None:
    names = list("abcde")
    trials = [TuneTrial(setup, {1: speed}, seconds=600) for setup, speed in ((PLAN, 10.0), (("a",), 13.0))]
    assert forecast.until_decided(names, trials, never).starts == 8
    assert forecast.hours(names, trials, never, 36) == pytest.approx(1.7), "ten starts of ten minutes"
    assert forecast.hours(names, trials, never, 7200) == pytest.approx(2.1), "more than was given"
    assert forecast.hours(names, trials[:1], never, 36) == pytest.approx(1.7), "its first may be as long as others"
    compiled = [TuneTrial(PLAN, {1: 10.0}, seconds=3600), TuneTrial(("a",), {1: 13.0}, seconds=60)]
    assert forecast.hours(names, compiled, never, 36) == pytest.approx(1.2), "only the first one compiles"
    failed = TuneTrial(("b",), failed="it crashed", seconds=3600)
    assert forecast.hours(names, [*compiled, failed], never, 36) >= 2.1
    assert math.isfinite(forecast.hours([], [], never, 36))


def test_what_was_not_tried_yet_may_be_far_beyond_a_noise_that_is_known() -> None:
    failed = [TuneTrial((name,), failed="it crashed") for name in "ab"]
    trials = [TuneTrial(PLAN, {1: 10.0}), *failed, TuneTrial(PLAN, {1: 9.0})]
    assert forecast.until_decided(["a", "b", "c"], trials, never).starts == 3, "it, and two that confirm it"
