"""What the modules of an unpacked vLLM define, read by ast: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

Read = Callable[[str], bytes | None]
_DEPTH = 12  # imports that are followed to a definition

Def = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Symbol:
    """A definition, or None for what is no function or class: a module, a constant, an import from elsewhere."""

    module: str
    node: Def | None


@dataclass
class Module:
    """One parsed file."""

    name: str
    path: str
    source: bytes
    tree: ast.Module
    names: dict[str, ast.AST] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {name: node for node in _statements(self.tree.body) for name in _bound(node)}

    @cached_property
    def scopes(self) -> list[tuple[str, Def]]:
        """Return every function and class with its dotted name, outer ones first."""
        return list(_scopes(self.tree, ""))

    def scope(self, line: int) -> tuple[str, Def | None]:
        """Return the innermost function or class that holds a line; an empty name is the module itself."""
        inside = [(n, d) for n, d in self.scopes if _first(d) <= line <= (d.end_lineno or 0)]
        return inside[-1] if inside else ("", None)

    def imported(self, node: ast.ImportFrom) -> str:
        """Return the absolute module that an import statement names."""
        if not node.level:
            return node.module or ""
        package = self.name.split(".") if self.path.endswith("/__init__.py") else self.name.split(".")[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *(node.module or "").split(".")]).rstrip(".")


class Modules:
    """The modules of a tree, parsed when they are asked for."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._cache: dict[str, Module | None] = {}

    def get(self, name: str) -> Module | None:
        """Return a module by its dotted name; None when the tree has none or it does not parse."""
        if name not in self._cache:
            base = name.replace(".", "/")
            found = ((path, self._read(path)) for path in (f"{base}.py", f"{base}/__init__.py"))
            self._cache[name] = next((parse(name, p, data) for p, data in found if data is not None), None)
        return self._cache[name]

    def find(self, module: str, names: tuple[str, ...], depth: int = _DEPTH) -> Symbol | None:
        """Return what a dotted name stands for, imports followed; None when the tree does not have it."""
        here = self.get(module)
        if here is None or not depth:
            return None
        if not names:
            return Symbol(module, None)
        first, rest = names[0], names[1:]
        node = here.names.get(first)
        if isinstance(node, ast.ImportFrom):
            return self._import(here, node, names, depth)
        if isinstance(node, ast.ClassDef) and rest:
            return self._member(here, node, rest, depth)
        if node is not None:
            return Symbol(module, node if isinstance(node, Def) else None)
        return self.find(f"{module}.{first}", rest, depth - 1) or self._hidden(here, first, rest, depth)

    def _import(self, here: Module, node: ast.ImportFrom, names: tuple[str, ...], depth: int) -> Symbol | None:
        target = here.imported(node)
        if target.split(".")[0] != "vllm":
            return Symbol(here.name, None)
        origin = next(a.name for a in node.names if (a.asname or a.name) == names[0])
        found = self.find(target, (origin, *names[1:]), depth - 1)
        return found or self.find(f"{target}.{origin}", names[1:], depth - 1)

    def _hidden(self, here: Module, first: str, rest: tuple[str, ...], depth: int) -> Symbol | None:
        """Look behind `from x import *` and a lazy `__getattr__`."""
        for node in here.tree.body:
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                found = self.find(here.imported(node), (first, *rest), depth - 1)
                if found:
                    return found
        lazy = "__getattr__" in here.names and f'"{first}"'.encode() in here.source
        return Symbol(here.name, None) if lazy else None

    def _member(self, here: Module, node: ast.ClassDef, names: tuple[str, ...], depth: int) -> Symbol | None:
        found = members(node).get(names[0])
        if found is not None:
            return Symbol(here.name, found if isinstance(found, Function) else None)
        for base in node.bases:
            path = _dotted(base)
            if path and (inherited := self.find(here.name, (*path, names[0]), depth - 1)):
                return inherited
        return None


def parse(name: str, path: str, source: bytes) -> Module | None:
    """Return a module, None for a file that does not parse."""
    try:
        return Module(name, path, source, ast.parse(source))
    except (SyntaxError, ValueError):
        return None


def members(node: ast.ClassDef) -> Mapping[str, ast.AST]:
    """Return what a class defines, with what its methods assign to `self`."""
    found: dict[str, ast.AST] = {name: one for one in _statements(node.body) for name in _bound(one)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and _dotted(inner.value) == ("self",):
            found.setdefault(inner.attr, inner)
    return found


def local_names(node: Def) -> set[str]:
    """Return the names that a function binds, its parameters among them."""
    if isinstance(node, ast.ClassDef):
        return set()
    stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, Def):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (a.asname or a.name.split(".")[0] for a in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))


def _scopes(node: ast.AST, prefix: str) -> Iterator[tuple[str, Def]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Def):
            yield f"{prefix}{child.name}", child
            yield from _scopes(child, f"{prefix}{child.name}.")
        else:
            yield from _scopes(child, prefix)


def _first(node: Def) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def _dotted(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (rest := _dotted(node.value)):
        return (*rest, node.attr)
    return ()
