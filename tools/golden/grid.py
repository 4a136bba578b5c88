"""`explain` and `fit` for every profile, model, hardware and tensor parallel size, said or left out."""

from __future__ import annotations

import functools
import itertools
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tools.golden import ROOT, facts
from tools.golden.command import Answer, Place
from tools.golden.facts import Combination

NONE = "-"
"""The model, or the size, is not named."""
AUTO = "auto"
_MEMORY = re.compile(r"\(refused as (weights|kv-cache);")


@functools.cache
def sheets(kind: str) -> dict[str, dict[str, Any]]:
    """Return the shipped files of `.` (profiles), `models`, `hardware` or `nccl` by name, as they are written."""
    found = sorted((ROOT / "profiles" / kind).glob("*.toml"))
    return {path.stem: read(path) for path in found if path.name != "base.toml"}


def read(path: Path) -> dict[str, Any]:
    """Return a TOML file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def combinations() -> list[Combination]:
    """Return all that are asked: each profile for every model at every size, and where the model is not named."""
    profiles, models, hardware = ([*sheets(kind)] for kind in (".", "models", "hardware"))
    sizes = sorted({2, 4, *_sizes(sheets(".")), *_sizes(sheets("models"))})
    every = itertools.product([*profiles, AUTO], [*models, NONE], hardware, [*map(str, sizes), NONE])
    return [one for one in every if _is_asked(*one)]


def _is_asked(profile: str, model: str, _hardware: str, size: str) -> bool:
    """Leave out what takes long and shows little: a size that is not named, and `auto` with everything named."""
    return NONE in (model, size) if profile == AUTO else model == NONE or size != NONE


def _sizes(some: dict[str, dict[str, Any]]) -> Iterator[int]:
    for sheet in some.values():
        yield from sheet.get("tensor-parallel-sizes", ())


def lines(place: Place) -> Iterator[str]:
    """Yield the part of the page."""
    asked = combinations()
    plans = {one: _ask(place, "explain", one) for one in asked}
    fits = {one: _ask(place, "fit", one) for one, plan in plans.items() if not plan.status or _MEMORY.search(plan.err)}
    answered = [one for one, plan in plans.items() if plan.out]
    yield "# dsv4 explain --format json: which combinations are answered"
    yield from _indented(facts.Grid(asked).where(answered))
    yield "\n# dsv4 explain: refusals; {profile}, {model}, {hardware} stand for the combination's own"
    yield from _index({one: [_refusal(one, plan)] for one, plan in plans.items() if not plan.out})
    yield "\n# dsv4 explain: what the answers say, and where among them"
    yield from _index({one: _plan(plans[one]) for one in answered})
    yield "\n# dsv4 fit --format json, asked where explain answers or refuses for memory"
    yield from _index({one: [_fit(one, fit)] for one, fit in fits.items()})


def _ask(place: Place, command: str, combination: Combination) -> Answer:
    named = [(f"--{axis}", value) for axis, value in zip(facts.AXES, combination, strict=True) if value != NONE]
    return place.ask([command, "--format", "json", *itertools.chain(*named)])


def _plan(answer: Answer) -> list[str]:
    said = [f"status {answer.status}", *(f"stderr: {line}" for line in answer.err.splitlines())]
    return [*said, *facts.of_plan(json.loads(answer.out))]


def _fit(combination: Combination, answer: Answer) -> str:
    if not answer.out:
        return _refusal(combination, answer)
    return f"status {answer.status}: {facts.of_fit(json.loads(answer.out))}{answer.err}"


def _refusal(combination: Combination, answer: Answer) -> str:
    """Return a refusal with the combination's own names taken out, so that many share it."""
    text = answer.err.removeprefix("dsv4: ").rstrip("\n")
    for axis, value in zip(facts.AXES[:3], combination[:3], strict=True):
        if value not in (NONE, AUTO):
            text = re.sub(rf"(?<![\w./-]){re.escape(value)}(?![\w./-])", f"{{{axis}}}", text, count=2)
    return f"status {answer.status}: {text}"


def _index(said: dict[Combination, list[str]]) -> Iterator[str]:
    """Yield every fact once, and below it where it holds among those that say anything."""
    holds: dict[str, list[Combination]] = defaultdict(list)
    for one, some in said.items():
        for fact in some:
            holds[fact].append(one)
    grid = facts.Grid([*said])
    for fact in sorted(holds):
        yield fact
        yield from _indented(grid.where(holds[fact]))


def _indented(products: Iterable[str]) -> Iterator[str]:
    yield from (f"    @ {product}" for product in products)
