"""Frames of `dsv4 top`: they fit the terminal, hold what is known, and show nothing that moves the cursor."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dsv4_serve.entrypoint.top.frame import frame
from dsv4_serve.entrypoint.top.reading import NO_ANSWER, TopDraft, TopPosition, TopReading
from dsv4_serve.entrypoint.top.screen import Look, rendered
from dsv4_serve.healthcheck.traffic import Traffic

NOW = datetime(2026, 11, 29, 9, 41, 12, tzinfo=UTC)
FUNNEL = [TopPosition(position=n, floor=0.5 if n == 0 else 0.0, gate=0.9, live=0.9 - n / 10) for n in range(7)]
DRAFT = TopDraft(floor=0.25, gate=0.9, live=0.74, drafted=12345, positions=FUNNEL)
TRAFFIC = Traffic(running=4, waiting=2, kv_usage=0.123, generated_rate=123.4, prompt_rate=5678.0, first_token=0.25)
READY = TopReading(
    "localhost:8001", "ready", ready=True, models=("demo",), seconds_in_phase=200.0, traffic=TRAFFIC, draft=DRAFT,
    starts=2, cause="hung (exit status 83): no progress",
)  # fmt: skip
LOADING = TopReading(
    "b", "loading weights", percent=43.0, step="shard 3 of 35", seconds_in_phase=40.0, seconds_left=190.0
)
DEAD = TopReading("c", NO_ANSWER, why="Connection refused", cause="engine-died (exit status 82): CUDA error")


def lines(*readings: TopReading, look: Look | None = None) -> list[str]:
    look = look or Look()
    return rendered(frame(readings, NOW, look), look)


def test_a_ready_replica_fills_80_by_24_and_not_more() -> None:
    shown = lines(READY)
    assert len(shown) <= 24
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    for known in (
        "localhost:8001  demo  09:41:12 UTC", "ready for 3 min", "123.4 tokens/s, 0.25 s to the first token", "5,678.0",
        "4 running, 2 waiting", "12.3%", "74% accepted of 12,345 tokens, floor 25%", "token 1", "token 7", "floor 50%",
        "start 2 of this plan; hung (exit status 83)",
    ):  # fmt: skip
        assert known in text


def test_the_funnel_narrows_with_the_positions() -> None:
    bars = [line.count("█") for line in lines(READY) if "token " in line]
    assert bars == sorted(bars, reverse=True)
    assert len(set(bars)) == 7


def test_without_traffic_the_gate_speaks() -> None:
    quiet = READY.draft.model_copy(update={"live": None}) if READY.draft else None
    assert "90% accepted at the draft gate" in "\n".join(lines(replace(READY, draft=quiet)))


@pytest.mark.parametrize(
    ("name", "words"), [("below_floor", "below the floor"), ("collapsed", "collapsed:"), ("degraded", "degraded:")]
)
def test_a_draft_head_that_does_not_help_is_named(name: str, words: str) -> None:
    assert words in "\n".join(lines(replace(READY, draft=DRAFT.model_copy(update={name: True}))))


def test_a_starting_replica_shows_how_far_it_is() -> None:
    text = "\n".join(lines(LOADING, look=Look(columns=100)))
    assert "loading weights 43 %, about 3 min left, shard 3 of 35, 40 s in this phase" in text
    assert "loading weights 43 %, about 3 min left" in "\n".join(lines(LOADING))


def test_a_dead_replica_shows_why_and_how_it_ended() -> None:
    text = "\n".join(lines(DEAD))
    assert "no answer" in text
    assert "Connection refused" in text
    assert "engine-died (exit status 82): CUDA error" in text


def test_several_replicas_have_a_row_each_and_a_sum() -> None:
    shown = lines(READY, replace(READY, name="b2"), LOADING, DEAD)
    text = "\n".join(shown)
    assert max(map(len, shown)) <= 80
    assert "2 of 4 replicas ready" in text
    assert "all: 246.8 tok/s, 8 running, 4 waiting" in text
    assert "90/80/70/60/50/40/30%" in text
    assert "c: Connection refused" in text
    assert [line.split()[0] for line in shown[4:8]] == ["b", "c", "localhost:8001", "b2"]


def test_a_short_window_shows_the_sum_and_what_is_not_ready() -> None:
    shown = lines(*[replace(READY, name=f"r{number}") for number in range(200)], DEAD, look=Look(lines=10))
    assert len(shown) == 10
    assert "200 of 201 replicas ready" in shown[0]
    assert shown[1].startswith("all: 24,680.0 tok/s")
    assert "no answer" in shown[4]


def test_a_small_window_says_what_it_hides() -> None:
    shown = lines(READY, look=Look(columns=40, lines=10))
    assert len(shown) == 10
    assert max(map(len, shown)) <= 40
    assert shown[-1].startswith("… ")
    assert "more lines" in shown[-1]


def test_foreign_text_cannot_move_the_cursor() -> None:
    evil = replace(READY, name="a\x1b[2Jb", models=("x\r\ny",), cause="z\x07")
    assert not any(set(line) & set("\x1b\r\n\x07") for line in lines(evil, look=Look(columns=200)))


def test_colours_are_on_demand_and_ascii_has_no_blocks() -> None:
    assert "\x1b[32m" in "".join(lines(READY, look=Look(colours=True)))
    assert "\x1b" not in "".join(lines(READY))
    plain = "".join(lines(READY, look=Look(columns=30, blocks=False)))
    assert plain.isascii()
    assert "###" in plain
