"""Put a changed function in the place of the original, whoever has imported it."""

from __future__ import annotations

import ast
import functools
import sys
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from tools.mutants import ROOT


@dataclass(frozen=True)
class Place:
    """A function of a module, or a method: `name` or `Class.name`, and the lines of its body."""

    name: str
    lines: frozenset[int]


@functools.cache
def places(file: str) -> tuple[Place, ...]:
    """Return the functions and methods of a file."""
    found = []
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for one in inner:
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = range(one.body[0].lineno, (one.end_lineno or 0) + 1)
                found.append(Place(prefix + one.name, frozenset(lines)))
    return tuple(found)


def function_at(file: str, number: int) -> Place | None:
    """Return the function whose body holds a line; None for a line of the module, a class, or a signature."""
    return next((place for place in places(file) if number in place.lines), None)


def replace_code(path: str, name: str, source: str) -> None:
    """Give a function of the loaded module at this path the code that it has in another source."""
    module = next(m for m in sys.modules.values() if getattr(m, "__file__", None) == path)
    code = _code(compile(source, path, "exec"), name.split("."))
    thing: Any = module
    for part in name.split("."):
        thing = vars(thing)[part]
    if hasattr(thing, "cache_clear"):
        thing.cache_clear()
    _function(thing).__code__ = code


def _function(thing: Any) -> FunctionType:
    """Return the function within a property, a class method or a cache."""
    for inner in ("fget", "func", "__func__", "__wrapped__"):
        if not isinstance(thing, FunctionType) and hasattr(thing, inner):
            thing = getattr(thing, inner)
    assert isinstance(thing, FunctionType)
    return thing


def _code(code: CodeType, names: list[str]) -> CodeType:
    for name in names:
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    return code
