"""Combinations known to fail: each answer says why, and the way out. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..catalog.catalog import Base, ProfileFile, Refuse
from ..errors import ConfigError, nearest
from ..memory import checks, estimate
from ..plan import Setting, nested
from ..problem import Problem
from ..vllm_schema import schema
from .select import Selection

_BUILT_IN = frozenset({"profile-model", "profile-hardware", "tensor-parallel-size", "gpu-count", "weights", "kv-cache"})


def skippable(selection: Selection) -> frozenset[str]:
    """Return the names of the refusals that this selection can meet."""
    return _BUILT_IN | {rule.name for _, rule in _rules(selection)}


def require_known(selection: Selection, skip: Collection[str]) -> None:
    """Raise ConfigError for a name that is neither a refusal nor a check: `--skip` takes both, by one list of names."""
    if not set(skip) - skippable(selection):
        return
    from ..doctor.registry import NAMES

    names = skippable(selection) | NAMES
    if unknown := sorted(set(skip) - names):
        raise ConfigError(
            f"Nothing is called {unknown[0]!r} that could be skipped here{nearest(unknown[0], names)};"
            " docs/doctor.md lists the checks."
        )


def refusals(
    selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting]
) -> Iterator[tuple[str, str]]:
    """Yield the name and the sentence of every refusal that a plan meets."""
    for name, where, problem in problems(selection, flags, env):
        needed = f"needed: {problem.needed}; " if problem.needed else ""
        yield name, f"{where}: {problem.seen}; {needed}{problem.fix}."


def problems(
    selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting]
) -> Iterator[tuple[str, str, Problem]]:
    """Yield every refusal that a plan meets: its name, where it stands, and the problem."""
    for entry, rule in _rules(selection):
        if _matches(rule, selection, flags, env):
            yield rule.name, entry.file, Problem(rule.because, "", rule.instead)
    at = f"{selection.model.name} on {selection.hardware.name}"
    facts = estimate.memory(selection, flags)
    for name, problem in checks.problems(facts) if facts else ():
        if problem.fatal:
            yield name, at, problem
    for name, problem in _fences(selection):
        yield name, f"{selection.profile.name}, {at}", problem


def _fences(selection: Selection) -> Iterator[tuple[str, Problem]]:
    profile, model, hardware = selection.profile, selection.model, selection.hardware
    size, flag = selection.tensor_parallel_size, "tensor-parallel-size"
    if (models := profile.get("models")) and not model.is_one_of(models):
        seen = f"profile {profile.name} is not for model {model.name}"
        yield "profile-model", Problem(seen, f"one of {', '.join(models)}", "choose one with --model")
    if (kinds := profile.get("hardware")) and not hardware.is_one_of(kinds):
        seen = f"profile {profile.name} is not for {hardware.name}"
        yield "profile-hardware", Problem(seen, f"one of {', '.join(kinds)}", "choose another --profile")
    for what, entry in (("profile", profile), ("model", model)):
        sizes = entry.get("tensor_parallel_sizes")
        if sizes and size not in sizes:
            seen = f"{what} {entry.name} does not take {flag} {size}"
            yield flag, Problem(seen, f"one of {', '.join(map(str, sizes))}", "choose one with --tp")
    if selection.gpus is not None and size > selection.gpus:
        seen = f"{flag} {size} needs {size} GPUs and this process sees {selection.gpus}"
        yield "gpu-count", Problem(seen, "as many GPUs", "lower --tp")


def _rules(selection: Selection) -> Iterator[tuple[ProfileFile[Any], Refuse]]:
    files: list[ProfileFile[Any]] = [selection.root, selection.model, selection.hardware, selection.profile]
    for entry in files:
        link: ProfileFile[Base]
        for link in entry.chain():
            for rule in link.own.refuse:
                _check_names(rule, f"{link.file} [[refuse]] {rule.name}")
                yield link, rule


def _check_names(rule: Refuse, origin: str) -> None:
    """Raise ConfigError for a condition on a name that vLLM does not have: it could never match."""
    for name, value in rule.flags.items():
        schema.check_long_flag(name, origin)
        for key in value if isinstance(value, dict) else ():
            schema.check_key(f"{name}.{key}", origin)
    for name, value in rule.env.items():
        schema.check_variable(name, str(value), origin)


def _matches(rule: Refuse, selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting]) -> bool:
    names = selection.names()
    tree = nested({name: setting.value for name, setting in flags.items()})
    served = str(flags["model"].value) if "model" in flags else ""
    return (
        all(names[key] in allowed for key, allowed in rule.given().items())
        and selection.hardware.name not in rule.except_hardware
        and (not rule.draft_head or selection.draft_head in rule.draft_head)
        and (not rule.model_id or any(fnmatch.fnmatch(served.lower(), glob.lower()) for glob in rule.model_id))
        and all(_holds(tree, name, value) for name, value in rule.flags.items())
        and all(name in env and env[name].value == str(value) for name, value in rule.env.items())
    )


def _holds(tree: Mapping[str, Any], name: str, wanted: Any) -> bool:
    """Tell whether a setting has the wanted value, or one of a list of them; tables are compared key by key."""
    value = tree.get(name)
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(_holds(value, key, inner) for key, inner in wanted.items())
    return value in wanted if isinstance(wanted, list) else value == wanted
