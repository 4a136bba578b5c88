"""`explain` and `fit` for every profile, model, hardware and tensor parallel size, named or not."""

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
from tools.golden.command import Answer, Sandbox
from tools.golden.facts import Combination

NONE = "-"
"""Stands for a model, or a size, that is not named."""
AUTO = "auto"
_SEVERAL = re.compile(r"\d+ problems:\n|^\d+\. |\n\d+\. ")
_MEMORY = re.compile(r"To override this, use --skip (weights|kv-cache)\.")


@functools.cache
def profile_files(kind: str) -> dict[str, dict[str, Any]]:
    """Return the shipped files of a folder, as they are written, by name: `.` (profiles), `models`, `hardware`, …."""
    found = sorted((ROOT / "profiles" / kind).glob("*.toml"))
    return {path.stem: read(path) for path in found if path.name != "base.toml"}


def read(path: Path) -> dict[str, Any]:
    """Return a TOML file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def combinations() -> list[Combination]:
    """Return all that are tried: each profile with every model at every size, and with no model named."""
    profiles, models, hardware = ([*profile_files(kind)] for kind in (".", "models", "hardware"))
    sizes = sorted({2, 4, *_sizes(profile_files(".")), *_sizes(profile_files("models"))})
    every = itertools.product([*profiles, AUTO], [*models, NONE], hardware, [*map(str, sizes), NONE])
    return [one for one in every if _is_tried(*one)]


def _is_tried(profile: str, model: str, hardware: str, size: str) -> bool:
    """
    Leave out what takes long and shows little: a model without a size, and `auto` with everything named.

    Hardware that nobody has measured is tried with the models that it serves by default, as it adds little of its own;
    a model that no profile has a figure of is tried on H200.
    """
    if "unmeasured" in profile_files("hardware")[hardware].get("about", "") and model != NONE:
        return False
    if model != NONE and model not in _measured() and hardware not in ("h200", "cpu"):
        return False
    return NONE in (model, size) if profile == AUTO else model == NONE or size != NONE


@functools.cache
def _measured() -> frozenset[str]:
    return frozenset(one["model"] for file in profile_files(".").values() for one in file.get("measured", ()))


def _sizes(files: dict[str, dict[str, Any]]) -> Iterator[int]:
    for file in files.values():
        yield from file.get("tensor-parallel-sizes", ())


def lines(sandbox: Sandbox) -> Iterator[str]:
    """Yield this part of the page."""
    tried = combinations()
    plans = {one: _run(sandbox, "explain", one) for one in tried}
    fits = {
        one: _run(sandbox, "fit", one) for one, plan in plans.items() if not plan.status or _MEMORY.search(plan.err)
    }
    answered = [one for one, plan in plans.items() if plan.out]
    yield "# dsv4 explain --format json: which combinations are answered"
    yield from _indented(facts.Grid(tried).where(answered))
    yield "\n# dsv4 explain: refusals; {profile}, {model}, {hardware} stand for the combination's own"
    yield from _index({one: _refusals(one, plan) for one, plan in plans.items() if not plan.out})
    yield "\n# dsv4 explain: the facts of the answers, and which of them hold each"
    yield from _index({one: _plan(plans[one]) for one in answered})
    yield "\n# dsv4 fit --format json, where explain answers or refuses for memory"
    yield from _index({one: [_fit(one, fit)] for one, fit in fits.items()})


def _run(sandbox: Sandbox, command: str, combination: Combination) -> Answer:
    named = [(f"--{axis}", value) for axis, value in zip(facts.AXES, combination, strict=True) if value != NONE]
    return sandbox.run([command, "--format", "json", *itertools.chain(*named)])


def _plan(answer: Answer) -> list[str]:
    lines = [f"status {answer.status}", *(f"stderr: {line}" for line in answer.err.splitlines())]
    return [*lines, *facts.of_plan(json.loads(answer.out))]


def _fit(combination: Combination, answer: Answer) -> str:
    if not answer.out:
        return _refusal(combination, answer)
    return f"status {answer.status}: {facts.of_fit(json.loads(answer.out))}{answer.err}"


def _refusals(combination: Combination, answer: Answer) -> list[str]:
    """Return each problem of a refusal by itself, so that many combinations share it."""
    problems = _SEVERAL.split(answer.err.removeprefix("dsv4: ").rstrip("\n"))
    return [_shared(combination, f"status {answer.status}: {problem}") for problem in problems if problem]


def _refusal(combination: Combination, answer: Answer) -> str:
    text = answer.err.removeprefix("dsv4: ").rstrip("\n")
    return _shared(combination, f"status {answer.status}: {text}")


def _shared(combination: Combination, text: str) -> str:
    """Return a text with the combination's own names taken out."""
    for axis, value in zip(facts.AXES[:3], combination[:3], strict=True):
        if value not in (NONE, AUTO):
            text = re.sub(rf"(?<![\w./-]){re.escape(value)}(?![\w./-])", f"{{{axis}}}", text, count=2)
    return text


def _index(facts_of: dict[Combination, list[str]]) -> Iterator[str]:
    """Yield every fact once, and below it the combinations that it holds for."""
    holds: dict[str, list[Combination]] = defaultdict(list)
    for one, some in facts_of.items():
        for fact in some:
            holds[fact].append(one)
    grid = facts.Grid([*facts_of])
    for fact in sorted(holds):
        yield fact
        yield from _indented(grid.where(holds[fact]))


def _indented(products: Iterable[str]) -> Iterator[str]:
    yield from (f"    @ {product}" for product in products)
