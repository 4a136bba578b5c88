"""One frame of `dsv4 top`: all that is known of one replica, or a row for each of several. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ...healthcheck.traffic import Traffic
from .reading import NO_ANSWER, TopDraft, TopReading
from .screen import Colour, Look, Piece, Row, bar

_LABEL = 11
_BAR = 30
_ENDED = ("ended", "exited", "dead", NO_ANSWER)


def frame(readings: Sequence[TopReading], now: datetime, look: Look) -> list[Row]:
    """Return the lines of one frame."""
    if len(readings) == 1:
        return [_title(readings[0].name, ", ".join(readings[0].models), now), [], *_one(readings[0], look)]
    ready = sum(one.ready for one in readings)
    title = _title(f"{ready} of {len(readings)} replicas ready", "", now)
    return [title, _total(readings), [], *_several(sorted(readings, key=lambda one: one.ready), look)]


def _title(what: str, models: str, now: datetime) -> Row:
    return [
        Piece("dsv4 top  ", "quiet"),
        Piece(what, "bold"),
        Piece(f"  {models}" if models else ""),
        Piece(f"  {now:%H:%M:%S} UTC", "quiet"),
    ]


def _one(reading: TopReading, look: Look) -> Iterator[Row]:
    yield _row("phase", Piece(_phase(reading), _colour(reading)))
    if reading.why:
        yield _row("", Piece(reading.why, "open" if reading.ready else "bad"))
    if reading.traffic:
        yield from _traffic(reading.traffic, look)
    if reading.draft:
        yield []
        yield from _draft(reading.draft, look)
    if reading.note:
        yield _row("figures", Piece(reading.note, "open"))
    yield []
    starts = f"start {reading.starts} of this plan; " if reading.starts else ""
    yield _row("last exit", Piece(f"{starts}{reading.cause or 'none on record'}", "" if reading.cause else "quiet"))


def _traffic(traffic: Traffic, look: Look) -> Iterator[Row]:
    first = "" if traffic.first_token is None else f", {traffic.first_token:.2f} s to the first token"
    yield []
    yield _row("output", Piece(_rate(traffic.generated_rate), "bold"), Piece(first))
    yield _row("prompts", Piece(_rate(traffic.prompt_rate)))
    queue = Piece(f"{traffic.waiting} waiting", "open" if traffic.waiting else "")
    yield _row("requests", Piece(f"{traffic.running} running, "), queue)
    yield _row("KV cache", Piece(f"{bar(traffic.kv_usage, _BAR, look)} {traffic.kv_usage:.1%}"))


def _draft(draft: TopDraft, look: Look) -> Iterator[Row]:
    source = "live" if draft.live is not None else "gate"
    share = draft.live if draft.live is not None else draft.gate
    measured = "not measured" if share is None else f"{share:.0%} accepted"
    of = f" of {draft.drafted:,} tokens" if source == "live" else " at the draft gate"
    floor = "" if draft.floor is None else f", floor {draft.floor:.0%}"
    yield _row("drafts", Piece(measured, _low(draft)), Piece("" if share is None else of), Piece(floor, "quiet"))
    for row in draft.positions:
        at = row.live if source == "live" else row.gate
        if at is None:
            continue
        below = row.floor is not None and at < row.floor
        floor = "" if row.floor is None else f"  floor {row.floor:.0%}"
        figure = Piece(f"{bar(at, _BAR, look)} {at:4.0%}", "open" if below else "")
        yield _row(f"  token {row.position + 1}", figure, Piece(floor, "quiet"))
    if reason := _drafting(draft):
        yield _row("", Piece(reason, "open"))


def _drafting(draft: TopDraft) -> str:
    if draft.degraded:
        return "degraded: it serves without its draft head"
    if draft.collapsed:
        return "collapsed: hardly any token is accepted after the first"
    return "below the floor" if draft.below_floor else ""


def _several(readings: Sequence[TopReading], look: Look) -> Iterator[Row]:
    """Yield a row for each, then what is wrong; those that are not ready come first, as a window may be short."""
    cells = [_cells(one) for one in readings]
    head = ("replica", "phase", "tok/s", "run", "wait", "KV", "accepted by position")
    widths = [max(len(row[column]) for row in [head, *cells]) for column in range(len(head))]
    spare = look.columns - sum(widths[2:]) - 2 * (len(widths) - 1) - widths[0]
    widths[1] = max(len("phase"), min(widths[1], spare))
    yield [Piece(_columns(head, widths), "quiet")]
    for one, row in zip(readings, cells, strict=True):
        first, phase, *rest = row
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(rest[:-1], widths[2:], strict=False))
        yield [
            Piece(f"{first:<{widths[0]}}  "),
            Piece(f"{phase[: widths[1]]:<{widths[1]}}  ", _colour(one)),
            Piece(numbers),
            Piece(f"  {rest[-1]}", _low(one.draft) if one.draft else ""),
        ]
    for one in readings:
        if reason := one.why or one.note or ("" if one.ready else one.cause):
            yield []
            yield [Piece(f"{one.name}: ", "bold"), Piece(reason, "open" if one.ready or one.note else "bad")]


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    text = [
        cell.ljust(width) if n < 2 or n == 6 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(text)


def _cells(reading: TopReading) -> tuple[str, ...]:
    traffic, draft = reading.traffic, reading.draft
    funnel = "/".join(f"{at:.0%}" for at in _shares(draft)).replace("%/", "/") if draft else ""
    return (
        reading.name,
        _phase(reading, short=True),
        "-" if traffic is None or traffic.generated_rate is None else f"{traffic.generated_rate:,.1f}",
        str(traffic.running) if traffic else "-",
        str(traffic.waiting) if traffic else "-",
        f"{traffic.kv_usage:.0%}" if traffic else "-",
        funnel or "-",
    )


def _shares(draft: TopDraft) -> list[float]:
    source = "live" if draft.live is not None else "gate"
    found = [getattr(row, source) for row in draft.positions]
    return [share for share in found if share is not None] or [
        one for one in [getattr(draft, source)] if one is not None
    ]


def _total(readings: Sequence[TopReading]) -> Row:
    known = [one.traffic for one in readings if one.traffic]
    rate = sum(one.generated_rate or 0.0 for one in known)
    running, waiting = sum(one.running for one in known), sum(one.waiting for one in known)
    return [Piece(f"all: {rate:,.1f} tok/s, {running} running, {waiting} waiting", "bold")]


def _phase(reading: TopReading, *, short: bool = False) -> str:
    if reading.ready:
        return "ready" if short or reading.seconds_in_phase is None else f"ready for {_time(reading.seconds_in_phase)}"
    done = "" if reading.percent is None else f" {reading.percent:.0f} %"
    left = "" if reading.seconds_left is None else f", about {_time(reading.seconds_left)} left"
    if short:
        return f"{reading.phase}{done}{left.replace('about ', '')}"
    step = f", {reading.step}" if reading.step else ""
    spent = "" if reading.seconds_in_phase is None else f", {_time(reading.seconds_in_phase)} in this phase"
    return f"{reading.phase}{done}{left}{step}{spent}"


def _colour(reading: TopReading) -> Colour:
    if reading.ready:
        return "open" if reading.why else "good"
    return "bad" if reading.phase in _ENDED or reading.phase == "ready" else "open"


def _low(draft: TopDraft) -> Colour:
    return "open" if _drafting(draft) else ""


def _rate(rate: float | None) -> str:
    return "unknown yet" if rate is None else f"{rate:,.1f} tokens/s"


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _row(label: str, *pieces: Piece) -> Row:
    return [Piece(label.ljust(_LABEL), "quiet"), *pieces]
