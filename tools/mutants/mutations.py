"""The mutants of a module: cosmic-ray's operators, each applied at each place."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tools.mutants import ROOT, Mutant, Table


def mutants(file: str, table: Table) -> list[Mutant]:
    """Return every mutant of a file once, in the order of its lines."""
    from cosmic_ray.plugins import operator_names  # pyright: ignore[reportMissingImports] - only `make mutants` has it

    code = (ROOT / file).read_text(encoding="utf-8")
    meaning, lines = _meaning(code), code.splitlines()
    skipped = _skipped(code, {name for where, name in table.skipped if where == file})
    found: dict[str, Mutant] = {}
    for name in operator_names():
        if name.removeprefix("core/") not in table.operators:
            continue
        for changed in _changes(code, name):
            mutant = _mutant(file, lines, changed, decorator=name == "core/RemoveDecorator")
            if mutant.number not in skipped and _meaning(changed) != meaning:
                found.setdefault(changed, mutant)
    return sorted(found.values(), key=lambda mutant: (mutant.number, mutant.becomes))


def _changes(code: str, operator: str) -> Iterator[str]:
    from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]
    from cosmic_ray.plugins import get_operator  # pyright: ignore[reportMissingImports]

    occurrence = 0
    while (changed := mutate_code(code, get_operator(operator)(), occurrence)) is not None:
        yield changed
        occurrence += 1


def _mutant(file: str, lines: list[str], changed: str, *, decorator: bool) -> Mutant:
    pairs = zip(lines, [*changed.splitlines(), *lines], strict=False)
    index = next(index for index, (old, new) in enumerate(pairs) if old != new)
    if decorator:  # it goes with the blank lines before it
        index = next(n for n in range(index, len(lines)) if lines[n].strip())
    becomes = "" if decorator else " ".join(changed.splitlines()[index].split())
    return Mutant(file, index + 1, " ".join(lines[index].split()), becomes, changed)


def _meaning(code: str) -> str:
    """Return what runs: annotations are not evaluated (`from __future__ import annotations`)."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        return str(error)
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
    return ast.dump(tree)


def _skipped(code: str, functions: set[str]) -> set[int]:
    found = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in functions
    ]
    return {number for node in found for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
