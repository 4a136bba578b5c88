"""The profile file of a setup: the plan's own profile, extended by changes; and which setups resolve and fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, problems_of
from ..plan import Plan, Value, nested, plain
from ..request import Request
from ..resolve import memory_inputs
from ..resolve.resolution import Resolution
from ..resolve.select import Selection
from .candidates import NCCL, TuneCandidate
from .decide import Setup

SHADOW = "tuning"
"""The name of the profile that a setup is started with; the file is in a folder of the run."""
Resolve = Callable[[str, Sequence[Path]], Resolution]
"""Resolve a profile by name, with folders of profile files before those of the user."""


@dataclass(frozen=True)
class Setups:
    """What is tuned: the plan's profile, how a profile resolves, the candidates by name, and a folder for files."""

    profile: str
    resolve: Resolve
    candidates: Mapping[str, TuneCandidate]
    folder: Path

    def changes(self, setup: Setup) -> dict[str, Value]:
        """Return the changes of a setup together."""
        return {key: value for name in setup for key, value in self.candidates[name].changes.items()}

    def place(self, setup: Setup) -> tuple[str, list[Path]]:
        """Return the name of a setup's profile, and the folder that it is written to; the plan's own needs none."""
        if not setup:
            return self.profile, []
        folder = self.folder / "-".join(setup)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{SHADOW}.toml").write_text(body(self.profile, self.changes(setup)), encoding="utf-8")
        return SHADOW, [folder]

    def resolution(self, setup: Setup) -> Resolution:
        """Resolve a setup as `serve` would; raise ConfigError where that refuses it."""
        return self.resolve(*self.place(setup))

    def clash(self, first: str, second: str) -> bool:
        """Tell whether two candidates cannot be combined."""
        return self.candidates[first].clashes(self.candidates[second])


def body(profile: str, changes: Mapping[str, Value], comments: Iterable[str] = (), about: str = "") -> str:
    """Return the text of a profile file that lays changes over another profile."""
    head = [f"# {line}" for line in comments]
    head += [f"about = {toml(about)}"] if about else []
    head += [f"extends = {toml(profile)}"]
    head += [f"{NCCL} = {toml(changes[NCCL])}"] if NCCL in changes else []
    tables = nested({name: value for name, value in changes.items() if name != NCCL})
    scalars = [f"{name} = {toml(value)}" for name, value in tables.items() if not isinstance(value, dict)]
    lines = [*head, *(["", "[flags]", *scalars] if scalars else [])]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += ["", f"[flags.{name}]", *(f"{key} = {toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def toml(value: Value) -> str:
    """Return a value as TOML writes it; JSON writes texts, numbers, switches and lists the same way."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def set_by_request(changes: Mapping[str, Value], request: Request) -> str:
    """Return where a request itself sets what a candidate would change; nothing if it does not."""
    for name in changes:
        found = request.choices.get(NCCL) if name == NCCL else request.flag(name)
        if found:
            return found.origin
    return ""


def allowed(setups: Setups, candidate: TuneCandidate, request: Request, before: Resolution) -> str:
    """Return why a candidate is not tried; nothing if it resolves, fits, and changes something."""
    if origin := set_by_request(candidate.changes, request):
        return f"the {origin} decides it"
    try:
        after = setups.resolution((candidate.name,))
    except ConfigError as error:
        return problems_of(error)[0].partition(" To override")[0].rstrip(".")
    if _facts(after.plan) == _facts(before.plan):
        return "it changes nothing here"
    return _short_of_memory(before, after)


def _facts(plan: Plan) -> dict[str, Any]:
    return {**plain(plan.flags), **plain(plan.env)}


def _short_of_memory(before: Resolution, after: Resolution) -> str:
    """Return why a plan with less memory for its requests is not tried."""
    kept, held = (_held(one.selection, one.plan) for one in (before, after))
    if kept is None or held is None or held >= kept:
        return ""
    return f"{held} instead of {kept} of the promised requests would fit at full length (dsv4 fit)"


def _held(selection: Selection, plan: Plan) -> int | None:
    """Return how many of the promised requests fit; None where the memory is not counted."""
    memory = memory_inputs.estimate(selection, plan.flags)
    if memory is None or not memory.sized:
        return None
    return min(memory.steady_state_requests, memory.requests) * memory.data_parallel_size


def named(candidates: Iterable[TuneCandidate], kinds: Sequence[str]) -> list[TuneCandidate]:
    """Return the candidates of some kinds; all where none is named."""
    return [one for one in candidates if not kinds or one.kind in kinds]
