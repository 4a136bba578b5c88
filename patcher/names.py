"""Which names of vLLM the series' added lines and this product's files use, and what another tree has instead."""

from __future__ import annotations

import ast
import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .port import Files
from .series import Series
from .symbols import Function, Module, Modules, local_names, members, parse
from .tree import Tree
from .uses import Use, borrowed, fits, loose_attributes, signature, uses

PRODUCT = ("demo", "entrypoint", "healthcheck", "qualification", "tests", "tools")
_COMMON = 60
"""A word in more files than this says nothing about one object's attribute."""

Kind = Literal["gone", "changed"]


@dataclass(frozen=True)
class NameChange:
    """A name that is gone or has changed, and who uses it."""

    kind: Kind
    what: str
    users: tuple[str, ...]


def compare(
    series: Series, base: Tree, files: tuple[Files, Files], target: Tree, root: Path
) -> tuple[int, list[NameChange]]:
    """Return how many names were looked up, and those that are gone or changed. `root` holds the product's files."""
    before, after = files
    old = Modules(lambda path: before[path] if path in before else base.read(path))
    new = Modules(target.read)
    found: dict[tuple[Kind, str], set[str]] = defaultdict(set)
    seen: set[tuple[str, ...]] = set()
    loose: dict[str, set[str]] = defaultdict(set)
    for module, added, owner in _added(series, before, after):
        for use in uses(module, added):
            seen.add((use.module, *use.names))
            for kind, what in _changes(use, old, new):
                found[kind, what].add(owner(use.line))
        for kind, what, line in _surroundings(module, added, old, new):
            found[kind, what].add(owner(line))
        for name, line in loose_attributes(module, added):
            loose[name].add(owner(line))
    for file, module in _product(root):
        for use in uses(module):
            seen.add((use.module, *use.names))
            for kind, what in _changes(use, old, new):
                found[kind, what].add(f"{file}:{use.line}")
    for name in _lost_attributes(loose, base, target):
        found["gone", f"attribute .{name}"] |= loose[name]
    moved = _elsewhere([what for kind, what in found if kind == "gone"], target)
    findings = [
        NameChange(kind, what + moved.get(what, ""), tuple(sorted(users)))
        for (kind, what), users in sorted(found.items())
    ]
    return len(seen) + len(loose), findings


def _added(series: Series, before: Files, after: Files) -> Iterator[tuple[Module, set[int], Callable[[int], str]]]:
    """Yield each Python file of the series, its added lines, and the name of the patch that added a line."""
    for path, chain in series.chains.items():
        data = after[path]
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        module = parse(name, path, data) if data and path.endswith(".py") else None
        if module is None:
            continue
        old, new = (before[path] or b"").splitlines(), module.source.splitlines()
        steps = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        lines = {n + 1 for tag, _, _, low, high in steps if tag in ("insert", "replace") for n in range(low, high)}
        patches = [(p.name, {line.rstrip(b"\n") for h in d.hunks for line in h.new if line not in h.old})
                   for p in series.patches for d in p.diffs if d in chain]  # fmt: skip

        def owner(line: int, patches: list[tuple[str, set[bytes]]] = patches, new: list[bytes] = new) -> str:
            return next((name for name, added in patches if new[line - 1] in added), patches[-1][0])

        yield module, lines, owner


def _product(root: Path) -> Iterator[tuple[str, Module]]:
    for path in sorted(file for folder in PRODUCT for file in (root / folder).rglob("*.py")):
        source = path.read_bytes() if path.is_file() else b""
        if b"vllm" in source:
            file = path.relative_to(root).as_posix()
            module = parse(file.removesuffix(".py").replace("/", "."), file, source)
            if module:
                yield file, module


def _changes(use: Use, old: Modules, new: Modules) -> Iterator[tuple[Kind, str]]:
    """Yield what became of a used name. A name that the old tree lacks is the series' own, or is made at run time."""
    names = use.names
    while (was := old.find(use.module, names)) is None and names:
        names = names[:-1]
    if was is None:
        return
    name = ".".join((use.module, *names))
    now = new.find(use.module, names)
    if now is None:
        yield "gone", name
    elif isinstance(was.node, Function) and isinstance(now.node, Function):
        yield from _signatures(f"{was.module}.{was.node.name}", was.node, now.node)
    elif use.call and names == use.names and isinstance(was.node, ast.ClassDef) and isinstance(now.node, ast.ClassDef):
        yield from _constructor(f"{was.module}.{was.node.name}", use.call, was.node, now.node)


def _signatures(name: str, was: Function, now: Function) -> Iterator[tuple[Kind, str]]:
    if signature(was) != signature(now):
        yield "changed", f"{name}{signature(was)} -> {signature(now)}"


def _constructor(name: str, call: ast.Call, was: ast.ClassDef, now: ast.ClassDef) -> Iterator[tuple[Kind, str]]:
    """Yield a class that a call no longer makes: a parameter of `__init__`, or a field, is gone or new."""
    inits = [members(node).get("__init__") for node in (was, now)]
    if all(isinstance(init, Function) for init in inits):
        old, new = inits
        assert isinstance(old, Function)
        assert isinstance(new, Function)
        if fits(call, old, bound=True) and not fits(call, new, bound=True):
            yield "changed", f"{name}{signature(old)} -> {signature(new)}"
        return
    given = {k.arg for k in call.keywords if k.arg}
    lost = sorted((given & members(was).keys()) - members(now).keys())
    if lost:
        yield "changed", f"{name}({', '.join(lost)}=): no such field"


def _surroundings(module: Module, added: set[int], old: Modules, new: Modules) -> Iterator[tuple[Kind, str, int]]:
    """Yield functions that the series edits and that are gone or changed, and names of theirs that it borrows."""
    was, now = old.get(module.name), new.get(module.name)
    if was is None or now is None:
        if was is not None:
            yield "gone", module.name, min(added)
        return
    here, there = dict(was.scopes), dict(now.scopes)
    for line in sorted(added):
        scope, _ = module.scope(line)
        edited = here.get(scope)
        if edited is None:
            continue
        other = there.get(scope)
        if other is None:
            yield "gone", f"{module.name}.{scope}", line
        elif isinstance(edited, Function) and isinstance(other, Function):
            for kind, what in _signatures(f"{module.name}.{scope}", edited, other):
                yield kind, what, line
    for scope, name, line in borrowed(module, added):
        if scope in here and scope in there and name in local_names(here[scope]) - local_names(there[scope]):
            yield "gone", f"{module.name}.{scope}, local name {name}", line


def _elsewhere(gone: list[str], target: Tree) -> dict[str, str]:
    """Say of names that are gone which modules define a function or class of that name."""
    last = {what: what.rpartition(".")[2] for what in gone if " " not in what}
    if not last:
        return {}
    either = "|".join(sorted(set(last.values()))).encode()
    form = re.compile(rb"^(?:async )?(?:def|class) (" + either + rb")\b", re.MULTILINE)
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted((target.root / "vllm").rglob("*.py")):
        for match in form.finditer(file.read_bytes()):
            places[match[1].decode()].append(file.relative_to(target.root).as_posix())
    return {what: f"; now in {', '.join(places[name][:3])}" for what, name in last.items() if places[name]}


def _lost_attributes(names: Iterable[str], base: Tree, target: Tree) -> list[str]:
    """Return attributes that some class of the one tree defines and none of the other does."""
    definers = _definers(set(names), base)
    rare = {name for name, files in definers.items() if files and len(files) <= _COMMON}
    later = _definers(rare, target)
    return sorted(name for name in rare if not later[name])


def _definers(names: set[str], tree: Tree) -> dict[str, set[str]]:
    """Return the files in which a class, or an assignment to an object, defines each attribute."""
    found: dict[str, set[str]] = {name: set() for name in names}
    if not names:
        return found
    either = "|".join(map(re.escape, sorted(names))).encode()
    form = re.compile(rb"^[ \t]+(?:async )?(?:def |class |[\w.]+\.)?(" + either + rb")\b[ \t]*[:=(,]", re.MULTILINE)
    for file in (tree.root / "vllm").rglob("*.py"):
        for match in form.finditer(file.read_bytes()):
            found[match[1].decode()].add(str(file))
    return found
