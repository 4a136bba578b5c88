"""The kernels of a step or a prompt by family, as torch's profiler counted them, of both engines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime

from tools.engines.result import Result, counted
from tools.engines.sessions import Comparison, Side
from tools.reference.markdown import table

TOGETHER = {
    "experts: GEMMs, routing, sums": ("experts",),
    "FP8 GEMMs, quantization": ("FP8 GEMM", "quantize"),
    "other GEMMs": ("other GEMM",),
    "hyper-connections": ("hyper-connections",),
    "attention, indexer, compressor": ("attention", "indexer", "compressor"),
    "all others": ("other", "torch and Triton, other", "copy", "sampling", "norm"),
    "all-reduce, waiting included": ("all-reduce",),
}
"""Rows of a table: families of tools/kernel_time.py that are shown together."""
REST = {"idle": ("idle",), "from the first kernel to the last": ("span",)}
ALL = "all kernels"


def sections(found: Sequence[Comparison]) -> Iterator[str]:
    """Yield a section for each kind: the newest trace that each engine has, at each batch and of each prompt."""
    for kind in dict.fromkeys(one.kind for one in found):
        own = [one for one in found if one.kind == kind]
        ours, theirs = [one.ours for one in own], [one.theirs for one in own]
        names = dict.fromkeys(name for side in (*ours, *theirs) for name in side.steps)
        tables = [_of(name, _newest(name, ours), _newest(name, theirs), ours[0]) for name in sorted(names, key=_order)]
        if tables:
            yield "\n".join([f"### Kernels: {kind}\n", *tables])


def _order(name: str) -> tuple[bool, int]:
    return name.startswith("prompt"), int(name.rpartition(" ")[2])


def _newest(name: str, sides: Iterable[Side]) -> Side | None:
    return next((side for side in sides if name in side.steps), None)


def _of(name: str, ours: Side | None, theirs: Side | None, latest: Side) -> str:
    """Return the table of a trace: ms of a step, or of all steps that read a prompt."""
    sides = [side for side in (theirs, ours) if side]
    head = ("SGLang", "ours", "ours - SGLang")
    if len(sides) == 1:
        head = ("SGLang",) if theirs else ("ours",)
    each = [_times(side.result, name, 1 if _reads(name) else side.steps[name]) for side in sides]
    rows = ((row, *_cells([one[row] for one in each], 1 if _reads(name) else 2)) for row in each[0])
    return f"{_caption(name, ours, theirs, latest)}\n\n{table((f'{_what(name)}, ms', *head), rows)}"


def _reads(name: str) -> bool:
    return name.startswith("prompt")


def _what(name: str) -> str:
    number = int(name.rpartition(" ")[2])
    if _reads(name):
        return f"a prompt of {number:,} tokens"
    return f"a step of {number} request{'s' if number > 1 else ''}"


def _caption(name: str, ours: Side | None, theirs: Side | None, latest: Side) -> str:
    said = []
    for who, side in (("SGLang", theirs), ("ours", ours)):
        if side:
            many = f"{counted(side.steps[name])} step{'s' if side.steps[name] > 1 else ''}"
            config = f", {side.result.experts}" if who == "ours" else ""
            said.append(f"{who}: {side.session}{config}, {many} ({side.result.link})")
        else:
            said.append(f"{who}: no trace")
    known = ours or theirs
    where = known.result.where if known else ""
    versions = ", ".join(side.result.version for side in (ours, theirs) if side)
    return f"{where}; {versions}. {'; '.join(said)}.{_apart(ours, theirs, latest)}"


def _apart(ours: Side | None, theirs: Side | None, latest: Side) -> str:
    """Return in bold that the columns are of two sessions, and how ours differs from its latest."""
    if not ours or not theirs or ours.session == theirs.session:
        return ""
    if datetime.fromisoformat(ours.result.date) > datetime.fromisoformat(theirs.result.date):
        return " **The columns are of two sessions: SGLang's is of an older one, so the difference is not today's.**"
    own, now = ours.result.experts.split(", "), latest.result.experts.split(", ")
    differs = [f"with {was}".replace("with no ", "without ") for was, has in zip(own, now, strict=True) if was != has]
    if ours.result.routing != latest.result.routing:
        dearer = ", a dearer routing" if ours.result.routing == "uniform_random" else ""
        differs.append(f"with `{ours.result.routing}`{dearer}")
    what = f", {' and '.join(differs)}" if differs else ""
    return f" **The columns are of two sessions: ours is of an older one{what}, so the difference is not today's.**"


def _times(result: Result, name: str, steps: int) -> dict[str, float]:
    """Return the ms of each row of a table; raise ValueError for a family that no row has."""
    found = {one["name"]: float(one["ms"]) for one in result.traces[name]}
    shown = TOGETHER | REST
    unknown = found.keys() - {part for parts in shown.values() for part in parts}
    if unknown:
        raise ValueError(f"{result.name}: no row of tools/engines/kernels.py has {', '.join(sorted(unknown))}.")
    times = {row: _summed(found, parts) / steps for row, parts in TOGETHER.items()}
    rest = {row: _summed(found, parts) / steps for row, parts in REST.items()}
    return times | {ALL: sum(times.values())} | rest


def _summed(found: dict[str, float], parts: Collection[str]) -> float:
    return sum(found.get(part, 0.0) for part in parts)


def _cells(values: Sequence[float], digits: int) -> Iterator[str]:
    yield from (f"{value:,.{digits}f}" for value in values)
    if len(values) == 2:
        yield f"{values[1] - values[0]:+,.{digits}f}"
