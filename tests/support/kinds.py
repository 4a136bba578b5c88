"""
Every test has one kind: unit, process, vllm, image or gpu (tests/README.md).

A mark names it; where none does, the folder, the fixtures or the module decide. With pytest-xdist it also has a group,
whose tests run one after the other in one process, where they would only wait for each other or make a thing twice.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parents[1]
KINDS = ("unit", "process", "vllm", "image", "gpu")
FOLDERS = {"image": "image", "faults": "vllm", "patches": "vllm"}
SHARED = {"vllm", "running_demo", "keyed_demo", "keyed_start", "answering", "broken"}
"""Fixtures of a vLLM that a run starts once: all tests with one are in one process."""
ONCE = {"pair"}
"""Fixtures of processes of ours that several files share."""
FIXTURES = {"daemon": "image", **dict.fromkeys(SHARED, "vllm")}
SERIAL = {"vllm", "image", "gpu"}
BESIDE = {
    "vllm-alone": ("demo/test_tool_calls.py", "entrypoint/qualify/"),
    "vllm-imported": ("entrypoint/vllm_schema/", "patches/", "profiles/", "qualification/", "tools/"),
}
"""Tests of kind vllm that start one of their own, and those that only import it: one chain of all would outlast the rest."""
LONG = ("golden",)
"""Folders with one test that takes as long as some chain of vLLM's."""
LAST = 3
STARTERS = {"subprocess", "multiprocessing"}
"""A module that imports one of these starts processes, and so does one that imports a helper of the tests that does."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the test its kind."""
    marks = {mark.name for mark in item.iter_markers()}
    given = [kind for kind in KINDS if kind in marks]
    if len(given) > 1:
        raise pytest.UsageError(f"{item.nodeid} has more than one kind: {', '.join(given)}")
    kind = given[0] if given else _kind(item, marks)
    if not given:
        item.add_marker(kind)
    if item.get_closest_marker("xdist_group"):
        return
    if group := _alone(item, kind) if kind in SERIAL else _group(item, kind):
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave `deep` tests to `make test-deep`, and begin with the files that take longest.

    Last are those that end a server which others ask: it would have to start once more.
    """
    if not os.environ.get("TEST_DEEP"):
        leave_out(config, items, [item for item in items if item.get_closest_marker("deep")])
    longest: dict[Path, int] = {}
    for item in items:
        longest[item.path] = min(_turn(item), longest.get(item.path, LAST))
    items.sort(key=lambda item: longest[item.path])


def leave_out(config: pytest.Config, items: list[pytest.Item], left: list[pytest.Item]) -> None:
    """Take the items of `left` out of a run, which counts them as deselected."""
    if left:
        config.hook.pytest_deselected(items=left)
        ids = set(map(id, left))
        items[:] = [item for item in items if id(item) not in ids]


def _turn(item: pytest.Item) -> int:
    """Long chains, then what is slow, then the rest: a test that begins late keeps one process busy at the end."""
    if _folder(item) == "faults":
        return LAST
    if _folder(item) in LONG or any(item.get_closest_marker(kind) for kind in SERIAL):
        return 0
    return 1 if item.get_closest_marker("slow") else 2


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let --last-failed find what failed in a run with xdist, which adds the group to a test's name."""
    cache = getattr(session.config, "cache", None)
    if cache and "PYTEST_XDIST_WORKER" not in os.environ:
        failed = cache.get("cache/lastfailed", {})
        cache.set("cache/lastfailed", {without_group(name): value for name, value in failed.items()})


def without_group(name: str) -> str:
    return name[: name.rindex("@")] if name.rfind("@") > name.rfind("]") else name


def _alone(item: pytest.Item, kind: str) -> str:
    """The kind; tests of vLLM that share no server with others are groups of their own beside it."""
    if SHARED.intersection(getattr(item, "fixturenames", ())):
        return kind
    chains = (chain for chain, places in BESIDE.items() if _below(item.path).startswith(places))
    return next(chains, kind) if kind == "vllm" else kind


def _folder(item: pytest.Item) -> str:
    return _below(item.path).partition("/")[0]


@functools.cache
def _below(path: Path) -> str:
    """The path inside tests/; empty elsewhere."""
    return path.relative_to(HERE).as_posix() if HERE in path.parents else ""


def _kind(item: pytest.Item, marks: set[str]) -> str:
    folder = _folder(item)
    if folder in FOLDERS:
        return FOLDERS[folder]
    for fixture, kind in FIXTURES.items():
        if fixture in getattr(item, "fixturenames", ()):
            return kind
    if "slow" in marks:
        return "vllm"
    return "process" if any(map(_starts_processes, _modules(item))) else "unit"


def _group(item: pytest.Item, kind: str) -> str:
    """
    The file, where what one test makes serves the others: once, not once in every process.

    That is so where they share a fixture of ours, and where they run in this process, whose caches they fill. xdist also
    takes seconds to hand out thousands of groups of one test each.
    """
    shared = (d for d in _definitions(item) if d.scope != "function" and d.func.__module__.startswith("tests."))
    if one := ONCE.intersection(getattr(item, "fixturenames", ())):
        return min(one)
    together = kind == "unit" or next(shared, None)
    return (_below(item.path) or str(item.path)) if together else ""


def _definitions(item: pytest.Item) -> Iterator[Any]:
    if isinstance(item, pytest.Function):
        found: dict[str, Any] = item._fixtureinfo.name2fixturedefs
        yield from (one for definitions in found.values() for one in definitions)


def _modules(item: pytest.Item) -> Iterator[ModuleType]:
    """The modules of the test and of its fixtures."""
    if isinstance(item, pytest.Function):
        yield sys.modules[item.function.__module__]
        yield from (module for one in _definitions(item) if (module := _module_of(one.func)))


def _module_of(thing: Any) -> ModuleType | None:
    return sys.modules.get(getattr(thing, "__module__", ""))


@functools.cache
def _starts_processes(module: ModuleType) -> bool:
    seen, rest = set(), [module]
    while rest:
        one = rest.pop()
        if one.__name__ in STARTERS:
            return True
        if one not in seen and one.__name__.startswith(("tests.", "qualification.")):
            seen.add(one)
            values = vars(one).values()
            rest += [x for value in values if (x := value if isinstance(value, ModuleType) else _module_of(value))]
    return False
