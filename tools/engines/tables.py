"""The tables of docs/results/engines.md: all pairs, the newest of each kind, and how well SGLang repeats."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tools.engines import kernels
from tools.engines.result import At, Result, named
from tools.engines.sessions import Comparison, Side
from tools.reference.markdown import table

ROWS = tuple(itertools.starmap(At, itertools.product((256, 1024, 16000), (1, 4, 16, 64))))
"""The rows of qualification/gpu/sglang.toml."""
RATE = "output_tokens_per_second"
FIGURES = {RATE: ("tok/s", ",.1f"), "tpot_p50": ("TPOT p50, ms", ".2f"), "ttft_p50": ("TTFT p50, ms", ",.0f")}
SUMMARY = ("session", "drafts, GPUs", "our experts", "rows compared", "at least SGLang's tokens a second", "missed")
SUMMARY += ("TPOT p50, ours / SGLang", "left out", "unmeasured", "results")
REPEATS = ("SGLang", "rows", "tok/s", "TPOT p50", "TTFT p50")


def tables(found: Sequence[Comparison]) -> dict[str, str]:
    """Return the tables by name."""
    return {
        "conditions": table(("condition", "value"), _conditions(found)),
        "summary": table(SUMMARY, map(_summed, found)),
        "rows": "\n".join(map(_section, newest(found))),
        "kernels": "\n".join(kernels.sections(found)),
        "repeats": _repeated(found),
        "sessions": "\n".join(_sessions(found)),
    }


def _conditions(found: Sequence[Comparison]) -> Iterator[tuple[str, str]]:
    """Yield what holds for all pairs."""
    sides = [side.result for one in found for side in (one.ours, one.theirs)]
    dates = sorted({side.date[:10] for side in sides})
    versions = {f"{side.version}{' with the patch series' if side.engine == 'dsv4' else ''}": None for side in sides}
    yield "GPUs", "; ".join(dict.fromkeys(one.ours.result.where for one in found))
    yield "engines", ", ".join(versions)
    yield "dates", " to ".join(dict.fromkeys((dates[0], dates[-1])))
    yield "weights", "; ".join(dict.fromkeys(side.weights for side in sides))
    yield "made from", "`qualification/results/engines.toml` and the results that it names"


def newest(found: Iterable[Comparison]) -> list[Comparison]:
    """Return the first pair of each kind."""
    first: dict[str, Comparison] = {}
    for one in found:
        first.setdefault(one.kind, one)
    return list(first.values())


def ratios(above: Result, below: Result, where: Iterable[At], figure: str = RATE) -> dict[At, float]:
    """Return the ratios of a figure of two results, by row."""
    return {at: above.rows[at][figure] / below.rows[at][figure] for at in where}


def _summed(one: Comparison) -> Iterator[str]:
    ours, theirs = one.ours.result, one.theirs.result
    left = [at for at in one.both if at in one.marks]
    rates = ratios(ours, theirs, (at for at in one.both if at not in left))
    reached = [ratio for ratio in rates.values() if ratio >= 1]
    lacking = sorted({*ROWS} - {*one.both})
    yield one.session.title + "".join(f"; {who} of {of}" for who, of in _elsewhere(one))
    yield one.kind
    yield ours.experts
    yield f"{len(rates)}"
    yield f"{len(reached)} ({spanned(reached)})" if reached else "0"
    yield "; ".join(f"{_short(at)}: {shown(ratio)}" for at, ratio in rates.items() if ratio < 1) or "none"
    yield spanned(ratios(ours, theirs, rates, "tpot_p50").values()) if rates else ""
    yield "; ".join(f"{_short(at)} ({_left_out(at, one)})" for at in left)
    yield _short_list(lacking)
    yield f"{theirs.link}, {ours.link}"


def _left_out(at: At, one: Comparison) -> str:
    """Return the ratio of a row that is left out, and what its reason begins with."""
    why = re.split(r"[;.]", one.marks[at])[0]
    [ratio] = ratios(one.ours.result, one.theirs.result, [at]).values()
    return f"{shown(ratio)}; {lowered(why)}"


def lowered(sentence: str) -> str:
    """Return a sentence as it goes on after a colon; names such as SGLang keep their case."""
    return sentence if sentence[1:2].isupper() else sentence[:1].lower() + sentence[1:]


def _elsewhere(one: Comparison) -> Iterator[tuple[str, str]]:
    """Yield the engines whose rows are of another session than the pair's, with that."""
    for who, side in (("ours", one.ours), ("SGLang", one.theirs)):
        if side.session != one.session.title:
            yield who, side.session


def _short(at: At) -> str:
    return f"{at.input:,} × {at.batch}"


def _short_list(rows: Collection[At]) -> str:
    return ", ".join(map(_short, rows)) if len(rows) <= 4 else f"{len(rows)} rows"


def spanned(values: Collection[float]) -> str:
    """Return the least and the most of ratios."""
    least, most = shown(min(values)), shown(max(values))
    return least if least == most else f"{least} to {most}"


def shown(ratio: float) -> str:
    """Return a ratio, with a third digit where two would hide that it is below 1."""
    text = f"{ratio:.2f}"
    return f"{ratio:.3f}" if ratio < 1 and text == "1.00" else text


def _section(one: Comparison) -> str:
    ours, theirs = one.ours.result, one.theirs.result
    head = ["tokens in", "requests"]
    for name, _ in FIGURES.values():
        head += [f"{name}, SGLang", "ours", "ratio"]
    rows = sorted(ours.rows.keys() | theirs.rows.keys())
    body = table(head, (_cells(at, one) for at in rows))
    marks = "".join(f"\n\\* {named(at)}: {lowered(why)} {_waits(at, one)}\n" for at, why in sorted(one.marks.items()))
    notes = "".join(f"\n{note}\n" for note in one.pair.notes)
    return f"### {one.kind}\n\n{_caption(one)}\n\n{body}{marks}\n{_facts(one)}{notes}"


def _caption(one: Comparison) -> str:
    ours, theirs = one.ours.result, one.theirs.result
    apart = "".join(
        f" **{who} is of another session, {of}**, so a ratio near 1 says little." for who, of in _elsewhere(one)
    )
    outputs = sorted({row["output"] for row in (*ours.rows.values(), *theirs.rows.values())})
    return (
        f"{one.session.title}, {conditions(one.ours, one.theirs)}, {ours.weights}, {ours.acceptance}, "
        f"{' or '.join(map(str, outputs))} tokens out.{apart}"
    )


def conditions(ours: Side, theirs: Side) -> str:
    """Return GPUs and versions of two results."""
    machine = ours.result.body["replica"].get("machine", {})
    driver = f", driver {machine['driver']}" if machine.get("driver") else ""
    return f"{ours.result.where}{driver}, {ours.result.version} with the patch series, {theirs.result.version}"


def _cells(at: At, one: Comparison) -> Iterator[str]:
    yield f"{at.input:,}"
    yield f"{at.batch}" + (r" \*" if at in one.marks else "")
    sides: tuple[Mapping[str, float], ...] = tuple(side.result.rows.get(at, {}) for side in (one.theirs, one.ours))
    for figure, (_, form) in FIGURES.items():
        yield from (format(row[figure], form) if row else "unmeasured" for row in sides)
        ratio = sides[1][figure] / sides[0][figure] if all(sides) else 0.0
        if figure == RATE:
            yield f"**{shown(ratio)}**" if ratio and at not in one.marks else ""
        else:
            yield f"{ratio:.2f}" if ratio else ""


def _waits(at: At, one: Comparison) -> str:
    sides = (("ours", one.ours), ("SGLang's", one.theirs))
    waits = [f"{who} {side.result.rows[at]['ttft_p99']:,.0f} ms" for who, side in sides if at in side.result.rows]
    return f"TTFT p99: {', '.join(waits)}."


def _facts(one: Comparison) -> str:
    sides = [side.result for side in (one.theirs, one.ours)]
    facts = {
        "seconds until ready": [side.ready for side in sides],
        "tokens a step (of a row)": [side.tokens_a_step() for side in sides],
        "tokens of prompts read a second, computed": [
            f"{rate:,.0f}" if (rate := side.reading()) else "" for side in sides
        ],
        "routing of the experts": [f"`{side.routing}`" if side.routing else "" for side in sides],
        "experts": [side.experts for side in sides],
        "result": [side.link for side in sides],
    }
    return table(("", "SGLang", "ours"), ((name, *cells) for name, cells in facts.items() if any(cells)))


def _repeated(found: Iterable[Comparison]) -> str:
    """Return how well SGLang repeats: a table, and which ratios may be chance by it."""
    spans = dict(_repeats(found))
    if not spans:
        return table(REPEATS, ())
    rows = ((which, f"{len(each[RATE])}", *(spanned(each[key]) for key in FIGURES)) for which, each in spans.items())
    chance = [
        f"{low:.2f} and {high:.2f} of {name.partition(',')[0]}"
        for key, (name, _) in FIGURES.items()
        for every in [[ratio for each in spans.values() for ratio in each[key]]]
        for low, high in [(min(every), max(every))]
    ]
    return f"{table(REPEATS, rows)}\nRatios between {', '.join(chance)} may be chance. Ours has no such repeat.\n"


def _repeats(found: Iterable[Comparison]) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Yield the ratios by figure of each result of SGLang to each older one of its kind."""
    every = {one.theirs.result.name: (one.kind, one.theirs) for one in found}.values()
    for (kind, newer), (other, older) in itertools.combinations(
        sorted(every, key=lambda of: of[1].result.date)[::-1], 2
    ):
        both = newer.result.rows.keys() & older.result.rows.keys()
        if kind == other and both:
            each = {key: list(ratios(newer.result, older.result, both, key).values()) for key in FIGURES}
            yield f"{kind}: {newer.session} / {older.session}", each


def _sessions(found: Iterable[Comparison]) -> Iterator[str]:
    """Yield each session's host, and what limits the comparison there."""
    for session in {one.session.title: one.session for one in found}.values():
        notes = "".join(f"* {note}\n" for note in session.notes)
        yield f"**{session.title}**: {session.host}\n\n{notes}"
