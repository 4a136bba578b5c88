"""The sliding window over the draft counters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.healthcheck.state import Acceptance
from dsv4_serve.healthcheck.window import Window


def filled(*readings: tuple[float, int, int], seconds: float = 10.0) -> Window:
    window = Window(seconds)
    for reading in readings:
        window.add(*reading)
    return window


def test_without_readings_or_with_one_there_is_nothing():
    assert filled().acceptance() == filled((0, 900, 800)).acceptance() == Acceptance(0, 0)


def test_only_the_last_seconds_count():
    window = filled((0, 0, 0), (5, 100, 100), (10, 200, 150), (15, 300, 200))
    assert window.acceptance() == Acceptance(200, 100)


def test_a_reading_from_before_the_window_is_what_a_late_one_is_compared_with():
    window = filled((0, 0, 0), (7, 100, 90), (14, 200, 100))
    assert window.acceptance() == Acceptance(200, 100)


def test_a_server_that_started_again_is_counted_from_its_start():
    window = filled((0, 1000, 900), (2, 1100, 990), (4, 30, 3))
    assert window.acceptance() == Acceptance(30, 3)
    window.add(6, 130, 13)
    assert window.acceptance() == Acceptance(130, 13)


def test_either_counter_that_falls_below_its_last_reading_is_a_start_again():
    first, last = (0, 100, 50), (2, 200, 150)
    assert filled(first, last, (4, 150, 160)).acceptance() == Acceptance(150, 160)
    assert filled(first, last, (4, 250, 70)).acceptance() == Acceptance(250, 70)


def test_counters_that_stand_still_are_no_start_again():
    assert filled((0, 100, 50), (2, 100, 50)).acceptance() == Acceptance(0, 0)


def test_it_is_below_the_floor_only_with_enough_draft_tokens():
    window = filled((0, 0, 0), (2, 100, 20))
    assert window.below(0.4, 100)
    assert not window.below(0.4, 101)
    assert not window.below(0.2, 100)
    assert not filled((0, 0, 0), (2, 0, 0)).below(0.4, 0)


PAUSES = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60)


@given(PAUSES, st.floats(0.1, 30))
def test_it_is_the_difference_to_the_newest_reading_that_is_old_enough(pauses, seconds):
    window, now, drafted, accepted = Window(seconds), 0.0, 0, 0
    seen = []
    for pause, more, good in pauses:
        now, drafted, accepted = now + pause, drafted + more, accepted + good
        window.add(now, drafted, accepted)
        seen.append((now, drafted, accepted))
    old = [reading for reading in seen if reading[0] <= now - seconds] or seen[:1]
    assert window.acceptance() == Acceptance(drafted - old[-1][1], accepted - old[-1][2])


def test_draft_tokens_without_an_accepted_one_are_counted_from_the_last_one_on():
    window = Window(300.0)
    assert window.fruitless() == 0
    window.add(0.0, 1000, 400)
    assert window.fruitless() == 0
    window.add(2.0, 1100, 400)
    window.add(4.0, 1250, 400)
    assert window.fruitless() == 250
    window.add(6.0, 1300, 401)
    assert window.fruitless() == 0
    window.add(1000.0, 1400, 401)  # longer than the window
    assert window.fruitless() == 100


def test_a_restarted_server_begins_its_count_of_fruitless_draft_tokens_at_zero():
    window = Window(300.0)
    window.add(0.0, 1000, 400)
    window.add(2.0, 30, 0)
    assert window.fruitless() == 30
    window.add(4.0, 60, 5)
    assert window.fruitless() == 0
