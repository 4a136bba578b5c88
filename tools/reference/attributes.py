"""What a class says of its attributes: the strings below them in its source."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap


def described(kind: type) -> dict[str, str]:
    """Return the strings below the attributes of a class and of those that it extends, on one line each."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if part.__module__.startswith("dsv4_serve."):
            found |= _own(part)
    return found


@functools.cache
def _own(kind: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, below in zip(tree.body, tree.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found
