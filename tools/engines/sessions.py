"""Read qualification/results/engines.toml: sessions with their pairs of results, each checked against its files."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tools.engines.result import At, Result, named
from tools.engines.words import wrong

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "qualification/results/engines.toml"
FOLDER = ROOT / "qualification/results/bench"
LONGEST = timedelta(hours=3)
"""A session's results are not further apart."""
FORM = "%Y-%m-%d, %H:%M UTC"
"""A session's title: the minute of the earliest date in its results."""


def _harmless(text: str) -> str:
    if "<!--" in text:
        raise ValueError("`<!--` would end the page's table")
    return text


Text: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_harmless)]
Steps: TypeAlias = Annotated[int, Field(ge=1, strict=True)] | Text


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Mark(_Entry):
    """A row that is left out of the comparison, and why."""

    input: int
    batch: int
    why: Text


class Traces(_Entry):
    """By batch, or `prompt N`, the steps of each trace of a result, or why the trace is left out."""

    ours: dict[str, Steps] = {}
    theirs: dict[str, Steps] = {}


class Pair(_Entry):
    """Two results that are compared."""

    ours: Text
    theirs: Text
    ours_session: str = ""
    """The title of the session that the result is of, where that is another one; `theirs_session` likewise."""
    theirs_session: str = ""
    notes: list[Text] = []
    marked: list[Mark] = []
    steps: Traces = Traces()


class Session(_Entry):
    """What was measured at one time on one host."""

    title: Text
    host: Text
    notes: list[Text] = []
    pair: Annotated[list[Pair], Field(min_length=1)]


class _List(_Entry):
    session: Annotated[list[Session], Field(min_length=1)]


@dataclass(frozen=True)
class Side:
    """A result of one engine, the session that it is of, and the steps of each of its traces that count."""

    result: Result
    session: str
    steps: Mapping[str, int]


@dataclass(frozen=True)
class Comparison:
    """A pair with what its files hold."""

    session: Session
    pair: Pair
    ours: Side
    theirs: Side

    @property
    def kind(self) -> str:
        """What is compared with each other only: the drafts, and how many GPUs served."""
        return self.ours.result.kind

    @property
    def both(self) -> list[At]:
        """The rows that both results have, in the order of the tables."""
        return sorted(self.ours.result.rows.keys() & self.theirs.result.rows.keys())

    @property
    def marks(self) -> dict[At, str]:
        """Why each row that is left out is."""
        return {At(one.input, one.batch): one.why for one in self.pair.marked}


def read(path: Path = LIST, folder: Path = FOLDER) -> list[Comparison]:
    """Return the pairs of all sessions, the newest first; raise ValueError, one sentence, for what does not fit."""
    listed: dict[str, Any] = {}
    try:
        listed = tomllib.loads(path.read_text(encoding="utf-8"))
        found = _List.model_validate(listed)
        titles = [session.title for session in found.session]
        compared = [_compared(session, pair, folder, titles) for session in found.session for pair in session.pair]
        _sorted(compared, titles)
    except ValidationError as error:
        raise ValueError(f"{path.name}: {wrong(error, listed)}.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    return compared


def _compared(session: Session, pair: Pair, folder: Path, titles: list[str]) -> Comparison:
    results = [Result.read(folder / name) for name in (pair.ours, pair.theirs)]
    sessions = (pair.ours_session or session.title, pair.theirs_session or session.title)
    ours, theirs = results
    found = Comparison(
        session,
        pair,
        *(Side(one, of, _numbers(steps)) for one, of, steps in zip(results, sessions, _steps(pair), strict=True)),
    )
    problem = next(_problems(found, titles), "")
    if problem:
        raise ValueError(f"session {session.title!r}, {ours.name} and {theirs.name}: {problem}")
    return found


def _problems(found: Comparison, titles: list[str]) -> Iterator[str]:
    """Yield what does not fit between an entry and its results."""
    yield from _unlike(found.ours.result, found.theirs.result)
    ours, theirs = found.ours.result, found.theirs.result
    both = (found.ours.session, found.theirs.session)
    yield from (f"no session has the title {of!r}." for of in both if of not in titles)
    if found.ours.session == found.theirs.session and abs(_date(ours) - _date(theirs)) > LONGEST:
        yield "they are hours apart: name the session of the older one with `ours_session` or `theirs_session`."
    if not found.both:
        yield "they have no row in common."
    if len(found.marks) < len(found.pair.marked):
        yield "a row is marked twice."
    known = ours.rows.keys() | theirs.rows.keys()
    yield from (f"no row has {named(at)}; it is marked." for at in found.marks if at not in known)
    for which, side, steps in zip(("ours", "theirs"), (ours, theirs), _steps(found.pair), strict=True):
        yield from _unstated(which, side, steps)


def _unlike(ours: Result, theirs: Result) -> Iterator[str]:
    """Yield what keeps two results from being compared."""
    if (ours.engine, theirs.engine) != ("dsv4", "sglang"):
        yield f"`ours` has to be of dsv4 and `theirs` of sglang; they are of {ours.engine} and {theirs.engine}."
    served = [f"{one.gpus}, {one.weights}, {one.acceptance}" for one in (ours, theirs)]
    if served[0] != served[1]:
        yield f"they were not served alike: {'; '.join(served)}."
    if ours.card and theirs.card and ours.card != theirs.card:
        yield f"they have different GPUs: {ours.card}; {theirs.card}."
    for at in sorted(ours.rows.keys() & theirs.rows.keys()):
        for key in ("output", "requests"):
            if ours.rows[at][key] != theirs.rows[at][key]:
                yield f"{named(at)}: {key} differs, {ours.rows[at][key]} and {theirs.rows[at][key]}."


def _unstated(which: str, result: Result, steps: Mapping[str, int | str]) -> Iterator[str]:
    """Yield the traces whose steps are not stated, those that are not there, and numbers that cannot be right."""
    for name in result.traces:
        if name not in steps:
            yield f"{result.name} has a trace of {name!r}: put its steps under `steps.{which}`, or why it is left out."
    for name, number in steps.items():
        if name not in result.traces:
            yield f"{result.name} has no trace of {name!r}, whose steps are stated."
        elif isinstance(number, int) and not result.fits(name, number):
            few = f"few of its kernels ran a multiple of {number} times"
            yield f"the trace of {name!r} in {result.name} cannot be of {number} steps: {few}."


def _steps(pair: Pair) -> tuple[Mapping[str, int | str], Mapping[str, int | str]]:
    return pair.steps.ours, pair.steps.theirs


def _numbers(steps: Mapping[str, int | str]) -> dict[str, int]:
    return {name: number for name, number in steps.items() if isinstance(number, int)}


def _date(result: Result) -> datetime:
    return datetime.fromisoformat(result.date)


def _sorted(compared: list[Comparison], titles: list[str]) -> None:
    """Refuse sessions that have one title, or that are not in order."""
    twice = next((title for title in titles if titles.count(title) > 1), None)
    if twice:
        raise ValueError(f"two sessions have the title {twice!r}.")
    pairs = [(one.pair.ours, one.pair.theirs) for one in compared]
    for ours, theirs in pairs:
        if pairs.count((ours, theirs)) > 1:
            raise ValueError(f"the pair of {ours} and {theirs} is there twice.")
    sides = [side for one in compared for side in (one.ours, one.theirs)]
    for title in titles:
        dates = [_date(side.result) for side in sides if side.session == title]
        if dates and title != (right := min(dates).astimezone(UTC).strftime(FORM)):
            raise ValueError(f"the session {title!r} has the title {right!r} by the earliest date of its results.")
    newest = {
        title: max(
            _date(side.result) for one in compared if one.session.title == title for side in (one.ours, one.theirs)
        )
        for title in titles
    }
    for above, below in itertools.pairwise(titles):
        if newest[above] < newest[below]:
            raise ValueError(f"the session {below!r} is newer than {above!r}; the newest has to be the first.")
