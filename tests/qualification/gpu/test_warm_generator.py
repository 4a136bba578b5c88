"""Short runs of a program that was imported once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qualification.gpu import warm_generator

pytestmark = pytest.mark.process

PROGRAM = """
import os, sys
def main():
    print(sys.argv, os.environ.get("COLOUR"), os.getcwd(), os.getppid())
    if "--help" in sys.argv: return
    print("also this", file=sys.stderr)
    if "fail" in sys.argv: raise ValueError("as asked")
    if "leave" in sys.argv: sys.exit("no more")
    sys.exit(int(sys.argv[-1]))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "stand_in.py").write_text(PROGRAM)
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{tmp_path}")
    with warm_generator.running(["stand_in"]) as found:
        yield found


def run(program: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, cwd=folder, env={"COLOUR": "red", **path()}
    )


def path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": str(Path(sys.executable).parent)}


def test_a_run_has_its_arguments_variables_folder_output_and_status(program: str, tmp_path: Path) -> None:
    done = [run(program, tmp_path, "bench", "serve", str(status)) for status in (0, 7)]
    assert [one.returncode for one in done] == [0, 7]
    assert done[0].stdout.startswith(f"['vllm', 'bench', 'serve', '0'] red {tmp_path} ")
    assert done[0].stderr == "also this\n"
    parents = {one.stdout.split()[-1] for one in done}
    assert len(parents) == 1  # both are forks of the process that imported it


def test_an_exception_is_a_failure_with_its_traceback(program: str, tmp_path: Path) -> None:
    done = run(program, tmp_path, "fail")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: as asked\n")
    assert run(program, tmp_path, "0").returncode == 0  # the next one runs


def test_a_text_at_the_end_is_shown_and_a_failure(program: str, tmp_path: Path) -> None:
    done = run(program, tmp_path, "leave")
    assert (done.returncode, done.stderr) == (1, "also this\nno more\n")
