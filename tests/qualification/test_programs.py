"""Every program of the laboratory and of tools/ can be imported, and scripts name programs that are there."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.each import each

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path for room in ("qualification", "tools") for path in (ROOT / room).rglob("*.py"))
SCRIPTS = sorted((ROOT / "qualification").rglob("*.sh"))
pytestmark = pytest.mark.xdist_group("programs")  # one process imports torch and matplotlib for them
NEEDS_TORCH = {"qualification.calibration.planner", "qualification.calibration.weights"}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@each("name", sorted({module(path) for path in PROGRAMS} - NEEDS_TORCH))
def test_a_program_can_be_imported(name: str) -> None:
    import_module(name)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_parsed_and_runs_modules_that_are_there(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = script.read_text(encoding="utf-8")
    names = re.findall(r"-m ((?:dsv4_serve|qualification|tools|tests)[\w.]*)", text)
    names += re.findall(r"from (dsv4_serve[\w.]*) import", text)
    assert names
    assert [name for name in names if find_spec(name) is None] == []


@each("program", [path for path in PROGRAMS if re.search(r"^    python ", path.read_text(), re.MULTILINE)])
def test_a_program_names_itself_as_it_is_run(program: Path) -> None:
    usage = re.findall(r"^    python (.*)$", program.read_text(encoding="utf-8"), re.MULTILINE)
    assert [line for line in usage if not re.match(rf"-m {module(program).removesuffix('.__main__')}\b", line)] == []
