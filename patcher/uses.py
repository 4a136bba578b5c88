"""Which names of vLLM a file uses, read by ast: imports, attributes of them, calls, and names in strings."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .symbols import Module, local_names

_DOTTED = re.compile(r"vllm(?:\.[A-Za-z_]\w*)+")
_FILE = re.compile(r"/?(?:vllm/)?((?:\w+/)+\w+\.py)")  # the slash follows an address in an f-string

Aliases = dict[str, tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Use:
    """A use of `module:names` at a line; `call` is there where it is called."""

    module: str
    names: tuple[str, ...]
    line: int
    call: ast.Call | None = None


def of_vllm(name: str) -> bool:
    """Say whether a dotted name belongs to vLLM."""
    return name == "vllm" or name.startswith("vllm.")


class Everything:
    """All lines of a file."""

    def __contains__(self, line: object) -> bool:
        return True


def uses(module: Module, lines: Container[int] | None = None) -> Iterator[Use]:
    """Yield what the given lines of a module use; names of the module itself too when it belongs to vLLM."""
    lines = Everything() if lines is None else lines
    aliases = _aliases(module)
    calls = {id(node.func): node for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    inner: set[int] = set()
    for node in ast.walk(module.tree):
        if id(node) in inner or getattr(node, "lineno", 0) not in lines:
            continue
        if isinstance(node, ast.ImportFrom) and of_vllm(module.imported(node)):
            for alias in node.names:
                yield Use(module.imported(node), (alias.name,), node.lineno)
        elif isinstance(node, ast.Import):
            yield from (Use(a.name, (), node.lineno) for a in node.names if a.name.startswith("vllm."))
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            root, attributes = _chain(node)
            inner.update(id(part) for part in _parts(node))
            if root in aliases:
                target, names = aliases[root]
                yield Use(target, (*names, *attributes), node.lineno, calls.get(id(node)))
        elif isinstance(node, ast.Tuple | ast.Call):
            yield from _named_attributes(node, aliases)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _in_string(node.value, node.lineno)


def borrowed(module: Module, lines: Container[int]) -> Iterator[tuple[str, str, int]]:
    """Yield (scope, name, line) for each name of a function around them that the given lines use but do not bind."""
    for scope, node in module.scopes:
        if isinstance(node, ast.ClassDef) or node.lineno in lines:
            continue
        names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
        own = {n.id for n in names if isinstance(n.ctx, ast.Store) and n.lineno in lines}
        for name in names:
            if isinstance(name.ctx, ast.Load) and name.lineno in lines and name.id in local_names(node) - own:
                yield scope, name.id, name.lineno


def loose_attributes(module: Module, lines: Container[int]) -> Iterator[tuple[str, int]]:
    """Yield the attributes of objects whose class the file does not tell."""
    aliases = _aliases(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.lineno in lines:
            root, _ = _chain(node)
            if root not in aliases:
                yield node.attr, node.lineno


def fits(call: ast.Call, function: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> bool:
    """Say whether the arguments of a call are those that a function takes."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return True
    args = function.args
    positional = [a.arg for a in (*args.posonlyargs, *args.args)][int(bound) :]
    keyword_only = [a.arg for a in args.kwonlyargs]
    required = set(positional[: max(len(positional) - len(args.defaults), 0)])
    required |= {n for n, d in zip(keyword_only, args.kw_defaults, strict=True) if d is None}
    given = {k.arg for k in call.keywords if k.arg} | set(positional[: len(call.args)])
    too_many = len(call.args) > len(positional) and not args.vararg
    unknown = given - {*positional, *keyword_only}
    return not too_many and required <= given and (not unknown or bool(args.kwarg))


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the parameters without types and without the values of their defaults."""
    bare = ast.parse(f"def f({ast.unparse(function.args)}): ...").body[0]
    assert isinstance(bare, ast.FunctionDef)
    for node in ast.walk(bare.args):
        if isinstance(node, ast.arg):
            node.annotation = None
    dots = ast.Constant(...)
    bare.args.defaults = [dots for _ in bare.args.defaults]
    bare.args.kw_defaults = [d and dots for d in bare.args.kw_defaults]
    return f"({ast.unparse(bare.args)})"


def _aliases(module: Module) -> Aliases:
    """Return what each name at hand stands for: imports anywhere in the file, and what a file of vLLM defines."""
    found: Aliases = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and of_vllm(module.imported(node)):
            found |= {a.asname or a.name: (module.imported(node), (a.name,)) for a in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname and alias.name.startswith("vllm."):
                    found[alias.asname] = (alias.name, ())
                elif alias.name.split(".")[0] == "vllm":
                    found["vllm"] = ("vllm", ())
    if of_vllm(module.name):  # the file has to go on importing what it lends to added lines
        found |= {name: (module.name, (name,)) for name in module.names}
    return found | _imported_by_call(module)


def _imported_by_call(module: Module) -> Aliases:
    """Return what `import_module("vllm.…")` stands for, as the call that it is and as the names it is assigned to."""
    texts = {name: _text(node.value, {}) for name, node in module.names.items() if isinstance(node, ast.Assign)}
    found: Aliases = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and len(node.args) == 1:
            root, attributes = _chain(node.func)
            name = _text(node.args[0], texts)
            if (root, *attributes)[-1] == "import_module" and of_vllm(name):
                found[ast.unparse(node)] = (name, ())
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            for assigned, value in zip(_elements(target), _elements(node.value), strict=False):
                root, attributes = _chain(value)
                if isinstance(assigned, ast.Name) and "(" in root and root in found:
                    found[assigned.id] = (found[root][0], attributes)
    return found


def _elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _text(node: ast.AST | None, texts: dict[str, str]) -> str:
    """Return the text of a string or of an f-string of known names, "" for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.FormattedValue):
        return texts.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
    return "".join(_text(part, texts) for part in node.values) if isinstance(node, ast.JoinedStr) else ""


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    while isinstance(node, ast.Attribute):
        node = node.value
        yield node


def _chain(node: ast.AST) -> tuple[str, tuple[str, ...]]:
    """Return what an expression begins with, a name or a call as it is written, and the attributes after it."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    root = node.id if isinstance(node, ast.Name) else ast.unparse(node) if isinstance(node, ast.Call) else ""
    return root, tuple(attributes)


def _named_attributes(node: ast.Tuple | ast.Call, aliases: Aliases) -> Iterator[Use]:
    """Yield `setattr(module, "name", ...)` and tuples of a module and a name."""
    parts = node.elts if isinstance(node, ast.Tuple) else node.args
    for owner, name in pairwise(parts):
        root, attributes = _chain(owner)
        if root in aliases and isinstance(name, ast.Constant) and str(name.value).isidentifier():
            target, names = aliases[root]
            yield Use(target, (*names, *attributes, str(name.value)), name.lineno)


def _in_string(text: str, line: int) -> Iterator[Use]:
    """Yield a dotted name, a file of vLLM, or the imports of a piece of code."""
    if _DOTTED.fullmatch(text):
        head, *rest = text.split(".")
        yield Use(head, tuple(rest), line)
    elif file := _FILE.fullmatch(text):
        yield Use(f"vllm.{file[1].removesuffix('.py').replace('/', '.')}", (), line)
    elif "from vllm" in text or "import vllm" in text:
        try:
            code = ast.parse(textwrap.dedent(text))
        except SyntaxError:
            return
        for node in ast.walk(code):
            if isinstance(node, ast.ImportFrom) and of_vllm(node.module or ""):
                yield from (Use(str(node.module), (a.name,), line) for a in node.names)
