"""
The rooms import one way, print in one place, and stay small.

`KNOWN_…` hold what is not so yet; each test fails as well when an entry is no longer needed.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dsv4_serve.entrypoint.exit_status import ExitStatus
from dsv4_serve.entrypoint.listen import API_PORT, HEALTH_PORT
from tests.support.sources import TOGETHER, tree

pytestmark = TOGETHER

ROOT = Path(__file__).parents[1]
ROOMS = ("entrypoint", "healthcheck", "patcher", "demo")
LAYERS = [
    "floor",  # the modules that stand in entrypoint/ itself
    "vllm_schema",
    "patcher",
    "catalog",
    "checkpoint",
    "weights",
    "client",
    "healthcheck",
    "vllm_log",
    "machine",
    "memory",
    "resolve",
    "demo",
    "doctor",
    "supervisor",
    "kernel_packs",
    "bench",
    "tune",
    "containers",
    "top",
    "kubernetes",
    "smoke",
    "evals",
    "report",
    "support",
    "qualify",
    "rollout",
    "cli",
]
"""Folders from the ground up: each imports only what stands before it."""
ENTRIES = {"entrypoint/__main__.py", "healthcheck/__main__.py", "patcher/__main__.py", "demo/__main__.py"}
SPEAKERS = {
    "patcher/cli.py",
    "demo/cli.py",
    "entrypoint/doctor/all_reduce/rank.py",
    "entrypoint/weights/fetch_program.py",
    "entrypoint/evals/harness.py",
}
"""Beside entrypoint/cli: the commands of other packages, and programs that are processes of their own."""
LONGEST = 300

KNOWN_BACK: set[str] = set()
KNOWN_LONG: set[str] = set()
KNOWN_SHARED: set[str] = set()
SPEECH = {"print", "exit", "quit", "SystemExit", "sys.exit", "os._exit", "sys.stdout", "sys.stderr"}
LAST_WORDS = {one.rpartition(".")[2] for one in SPEECH}


def modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def nodes(path: Path) -> list[ast.expr | ast.stmt]:
    """The nodes of a module that tests ask for: imports, names and attributes."""
    kinds = (ast.Import, ast.ImportFrom, ast.Name, ast.Attribute)
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


def folder(path: Path) -> str:
    """The layer that a module or package belongs to."""
    first, *rest = path.relative_to(ROOT).parts
    if first != "entrypoint":
        return first
    return rest[0] if rest and (ROOT / first / rest[0]).is_dir() else "floor"


def imported(path: Path) -> Iterator[Path]:
    """The modules and packages of ours that a module imports, for types too."""
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                inside = base / alias.name
                yield inside if inside.is_dir() or inside.with_suffix(".py").exists() else base


def absolute(path: Path) -> Iterator[str]:
    """Names of ours that a module imports as if from outside."""
    for node in nodes(path):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from (one for one in names if one.split(".")[0] in ("dsv4_serve", *ROOMS))


def speech(path: Path) -> Iterator[str]:
    """Where a module prints, or ends the process."""
    for node in nodes(path):
        last = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if last in LAST_WORDS and (what := ast.unparse(node)) in SPEECH:
            yield f"{name(path)}:{node.lineno}: {what}"


def test_every_folder_has_its_layer() -> None:
    assert {folder(path) for path in modules() if name(path) not in ENTRIES} == set(LAYERS)


def test_modules_import_each_other_relatively() -> None:
    assert [f"{name(path)}: {one}" for path in modules() for one in absolute(path)] == []


def test_every_folder_imports_only_what_stands_below_it() -> None:
    back: dict[str, set[str]] = defaultdict(set)
    for path in modules():
        if name(path) in ENTRIES:
            continue
        for other in imported(path):
            here, there = folder(path), folder(other)
            if LAYERS.index(there) > LAYERS.index(here):
                back[f"{here} -> {there}"].add(f"{name(path)} imports {name(other)}")
    new = {edge: found for edge, found in back.items() if edge not in KNOWN_BACK}
    assert new == {}
    assert back.keys() == KNOWN_BACK


def test_only_the_command_line_prints_or_ends_the_process() -> None:
    silent = [p for p in modules() if folder(p) != "cli" and name(p) not in SPEAKERS | ENTRIES]
    assert [found for path in silent for found in speech(path)] == []


def test_no_file_is_long() -> None:
    rooms = (*ROOMS, "tools", "qualification")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    long = {name(path) for path in files if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST}
    assert long == KNOWN_LONG


def test_no_two_public_classes_share_a_name() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name(path))
    shared = {one: places for one, places in where.items() if len(places) > 1}
    new = {one: places for one, places in shared.items() if one not in KNOWN_SHARED}
    assert new == {}
    assert shared.keys() == KNOWN_SHARED


def test_ports_and_exit_statuses_are_written_in_one_place() -> None:
    """In code; texts and addresses of examples may have them."""
    there = {"entrypoint/listen.py", "entrypoint/exit_status.py", "patcher/errors.py"}  # the patcher stands alone
    numbers = {API_PORT, HEALTH_PORT, *(status for status in ExitStatus if 64 <= status <= 87)}
    given = ("port", "default", "status", "exit_status", "return")
    found = [
        f"{name(path)}:{node.lineno}: {ast.unparse(node)}"
        for path in modules()
        if name(path) not in there
        for node in ast.walk(tree(path))
        if isinstance(node, ast.keyword | ast.Assign | ast.AnnAssign | ast.Return)
        and isinstance(node.value, ast.Constant)
        and type(node.value.value) is int
        and node.value.value in numbers
        and any(part in given for part in ast.unparse(node).partition("=")[0].lower().replace(":", " ").split())
    ]
    assert found == []


def test_nothing_changes_the_path_of_imports() -> None:
    rooms = (*ROOMS, "tools", "qualification", "tests")
    files = [path for room in rooms for kind in ("*.py", "*.sh") for path in (ROOT / room).rglob(kind)]
    change = ".".join(("sys", "path", "insert"))
    assert [name(path) for path in files if change in path.read_text(encoding="utf-8")] == []
