"""What the pages name exists: files and folders, commands, make targets, modules, links and their anchors."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.cli import parser
from tests.support.each import each

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "tests/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
MADE = ("build", "dist")
FOLDERS = sorted(
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in MADE and path.name[0] != "."
)
NOT_OURS = re.compile(r"qualification/(bench|smoke|qualify)\b|deploy/dsv4\b")
"""What begins as our folders do: results, which commands write where they are called, and kubectl's short `deploy/`."""
NO_COMMAND = re.compile(
    r"\bdsv4 (create|describe|dsv4|exec|get|logs|pod-security|port-forward|replica|rollout|scale|set)\b"
)
"""`dsv4` as the name of something else: a namespace, a container, a job."""
VLLMS_FILES = {"docs/explanation/seed-patches.md"}
"""Pages that name files of vLLM."""

Found = Iterator[str]


def code(page: Path) -> str:
    """Return the code of a page, block by block and span by span."""
    return "\n".join(CODE.findall(page.read_text(encoding="utf-8")))


def paths(page: Path) -> Found:
    """Yield what begins with a folder of ours, and names of Python files; NAME, X.Y.Z and {a,b} stand for any text."""
    for path in re.findall(rf"(?<![\w./:@*-])(?:{'|'.join(FOLDERS)})/(?:[\w./*-]|\{{[^}}\n]*\}})*", code(page)):
        if not NOT_OURS.match(path):
            yield re.sub(r"\{.*?\}|NAME|X\.Y\.Z", "*", path).rstrip(".")
    if str(page.relative_to(ROOT)) not in VLLMS_FILES:
        yield from re.findall(r"(?<=`)\w+\.py(?=`)", code(page))


def is_there(path: str) -> bool:
    """Tell whether a path, a pattern, or the bare name of a file, names something in the tree."""
    if "/" not in path:
        return any(next((ROOT / folder).rglob(path), None) for folder in FOLDERS)
    return next(ROOT.glob(path.rstrip("/")), None) is not None


def commands(page: Path) -> Found:
    """Yield the words after `dsv4` that stand where a command does."""
    yield from re.findall(r"\bdsv4 ([a-z][a-z-]+)", NO_COMMAND.sub("", code(page)))


def is_command(name: str) -> bool:
    return name in parser.names()


def targets(page: Path) -> Found:
    """Yield the words after `make` that are in lower case, as targets are."""
    yield from re.findall(r"\bmake ([a-z][a-z-]*)", code(page))


def is_target(name: str) -> bool:
    return re.search(rf"^{name}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE) is not None


def modules(page: Path) -> Found:
    """Yield the modules after `python -m`."""
    yield from re.findall(r"\bpython3? -m ([\w.]+)", code(page))


def is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def links(page: Path) -> Found:
    """Yield where a page points to within this repository, relative to its top."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            yield f"{file.relative_to(ROOT)}#{anchor}"


def resolves(link: str) -> bool:
    """Tell whether the file is there, and in it a heading that GitHub gives this anchor."""
    path, _, anchor = link.partition("#")
    return (ROOT / path).exists() and (not anchor or anchor in anchors(ROOT / path))


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


KINDS: dict[str, tuple[Callable[[Path], Found], Callable[[str], bool]]] = {
    "path": (paths, is_there),
    "command": (commands, is_command),
    "make target": (targets, is_target),
    "module": (modules, is_module),
    "link": (links, resolves),
}


@pytest.mark.parametrize("kind", KINDS)
@each("page", PAGES)
def test_what_a_page_names_exists(page: Path, kind: str) -> None:
    find, exists = KINDS[kind]
    assert [name for name in find(page) if not exists(name)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_something_of_each_kind_is_found(kind: str) -> None:
    assert any(name for page in PAGES for name in KINDS[kind][0](page))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("path", "tools/none.py"),
        ("path", "none.py"),
        ("path", "docs/*.none"),
        ("command", "none"),
        ("make target", "none"),
        ("module", "tools.none"),
        ("link", "docs/none.md#"),
        ("link", "docs/explanation/health.md#none"),
    ],
)
def test_what_does_not_exist_is_found(kind: str, name: str) -> None:
    assert not KINDS[kind][1](name)


def pages_named_in(file: Path) -> Found:
    """Yield the pages of docs/ that a program, a profile or another file names, in a message or a comment."""
    yield from re.findall(r"(?<![\w/])docs/[\w/-]+\.(?:md|svg)(?:#[\w-]+)?", file.read_text(encoding="utf-8"))


def test_the_pages_that_code_and_data_name_exist() -> None:
    kinds = (".py", ".toml", ".yml", ".yaml", ".cfg", ".json", ".sh", ".txt")
    inside = [file for name in FOLDERS if name not in ("docs", "tests") for file in (ROOT / name).rglob("*")]
    files = [ROOT / "Makefile", ROOT / "Dockerfile", ROOT / ".env", ROOT / "docker-compose.yml", *inside]
    named = {page for file in files if file.suffix in kinds or file.parent == ROOT for page in pages_named_in(file)}
    assert "docs/results/speed.md" in named
    assert [page for page in sorted(named) if not resolves(page)] == []
