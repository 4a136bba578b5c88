"""One table of exit statuses: documents, causes, errors and code say what it says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import errors
from dsv4_serve.entrypoint.exit_status import ExitStatus
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.patcher import errors as patcher
from tests.support.sources import TOGETHER, tree

pytestmark = TOGETHER

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("entrypoint", "healthcheck", "patcher", "demo")
LISTS = ("docs/reference/checks.md", "docs/how-to/smoke.md", "docs/how-to/kubernetes.md")
"""Pages with a table of their own: what to do, or what a status means for one command."""


@pytest.mark.parametrize("page", LISTS)
def test_a_page_names_only_statuses_of_the_table(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    table = re.search(r"\| (?:exit )?status \|.*\n\|---.*\n((?:\|.*\n)+)", text)
    assert table
    named = {int(number) for row in table[1].splitlines() for number in re.findall(r"\d+", row.split("|")[1])}
    assert named
    assert named <= set(ExitStatus)


def test_the_patchers_statuses_are_those_of_the_table() -> None:
    """It runs without the other rooms, so its numbers are its own."""
    text = (ROOT / "docs/explanation/patches.md").read_text(encoding="utf-8")
    listed = text[text.index("Exit status: 0") :].partition("\n\n")[0]
    named = {int(number) for number in re.findall(r"(?:^|[·:]|line\n?) ?(\d+) ", listed)}
    own = {kind.exit_status for kind in vars(patcher).values() if isinstance(kind, type)}
    assert own <= named <= set(ExitStatus)


def test_every_cause_has_its_status_and_its_name() -> None:
    for cause in exit_cause.CAUSES:
        assert cause is exit_cause.DRAINED or ExitStatus(cause.exit_status).label == cause.name
    assert len({cause.exit_status for cause in exit_cause.CAUSES}) == len(exit_cause.CAUSES)


def test_every_error_has_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UserError)]
    assert {ExitStatus(kind.exit_status) for kind in kinds} == {
        ExitStatus.NO, ExitStatus.USAGE, ExitStatus.HOST, ExitStatus.CONFIG, ExitStatus.NOT_EXECUTABLE, ExitStatus.NOT_FOUND,
    }  # fmt: skip


def test_every_status_is_given_by_some_code_and_no_other() -> None:
    """By name outside of the table, or as a number where a function returns one or a class has it."""
    given = set()
    for path in (path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")):
        given |= set(statuses(tree(path))) if path.name != "exit_status.py" else set()
    signals = {ExitStatus.KILLED, ExitStatus.CUT}  # as `exit_status.of_signal` counts them
    assert given | signals == set(ExitStatus)


def statuses(module: ast.Module) -> Iterator[int]:
    for node in ast.walk(module):
        match node:
            case ast.Attribute(value=ast.Name(id="ExitStatus"), attr=name):
                yield ExitStatus[name]
            case ast.Assign(targets=[ast.Name(id="exit_status")], value=ast.Constant(value=int(number))):
                yield number
            case ast.Return(value=ast.Constant(value=int(number))) if number in range(64, 200):
                yield number
