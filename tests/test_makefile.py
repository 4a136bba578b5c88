"""`make` clears and removes only folders that it made itself."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READ = [
    *("requirements/cpu.txt", "requirements/dev.txt", "requirements/dsv4.txt", "requirements/torch.txt"),
    *("pyproject.toml", "packaging/vllm/pyproject.toml"),
]
"""What the targets depend on; empty here."""
PYTHON = f"""#!/bin/sh
# Python that makes a real virtual environment, whose own Python does nothing but succeed, or fail where FAILS says so.
[ "$2" = venv ] || exec {shlex.quote(sys.executable)} "$@"
for folder; do :; done
{shlex.quote(sys.executable)} -m venv --without-pip "$folder" || exit 1
[ -z "$STOPS" ] || exit 1
rm "$folder"/bin/python*
printf '#!/bin/sh\\nexit "${{FAILS:-0}}"\\n' > "$folder/bin/python"
chmod +x "$folder/bin/python"
"""
Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The Makefile in a tree of its own, with a Python that installs nothing."""
    for name in READ:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = ["make", f"PYTHON={python}", *words]
        given = {"PATH": "/usr/local/bin:/usr/bin:/bin", **env}
        return subprocess.run(argv, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", ["venv", "test", "lint", "clean"])
def test_a_folder_that_make_did_not_make_is_left_as_it_is(make: Make, tmp_path: Path, target: str) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "deep").mkdir(parents=True)
    (theirs / "deep/thesis.txt").write_text("years")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/faults.jsonl").touch()
    before = contents(tmp_path)
    done = make(target, "VENV=theirs")
    assert done.returncode != 0
    assert (
        "error: theirs is not empty and was not made by make, so it was not changed; name another folder" in done.stderr
    )
    assert contents(tmp_path) == before


def test_a_virtual_environment_that_make_did_not_make_is_left_as_it_is(make: Make, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".box"], check=True)
    before = contents(tmp_path / ".box")
    assert make("venv", "VENV=.box").returncode != 0
    assert make("clean", "VENV=.box").returncode != 0
    assert contents(tmp_path / ".box") == before


@pytest.mark.parametrize("words", ["VENV=", "VENV=a b"])
def test_a_name_that_is_not_a_single_folder_is_refused(make: Make, tmp_path: Path, words: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").touch()
    done = make("clean", words)
    assert done.returncode != 0
    assert "must name one folder" in done.stderr
    assert (tmp_path / "a/file").exists()


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_folder_and_a_new_one_are_filled_begun_again_and_removed(
    make: Make, tmp_path: Path, there: bool
) -> None:
    made = tmp_path / "made"
    if there:
        made.mkdir()
    assert make("venv", "VENV=made").returncode == 0
    assert (made / "pyvenv.cfg").exists()
    (made / "left-behind").touch()
    (tmp_path / "requirements/dsv4.txt").touch()  # a lock changed
    assert make("venv", "VENV=made").returncode == 0
    assert not (made / "left-behind").exists()
    assert make("clean", "VENV=made").returncode == 0
    assert not made.exists()


def test_an_installation_that_failed_is_begun_again(make: Make, tmp_path: Path) -> None:
    failed = make("venv", "VENV=made", FAILS="1")
    assert failed.returncode != 0
    assert "torch 2.13.0+cpu was not found" in failed.stderr
    assert make("venv", "VENV=made").returncode == 0


def test_clean_goes_without_an_environment(make: Make, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    assert make("clean", "VENV=none").returncode == 0
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("name", ["~/theirs", "the*", "their?", "the[i]rs"])
def test_a_name_that_a_shell_reads_as_another_folder_is_refused(make: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("years")
    for target in ("venv", "clean"):
        done = make(target, f"VENV={name}", HOME=str(tmp_path))
        assert done.returncode != 0
        assert "write the path in full" in done.stderr
    assert (tmp_path / "theirs/thesis.txt").read_text() == "years"


def test_a_virtual_environment_that_was_interrupted_is_begun_again(make: Make, tmp_path: Path) -> None:
    assert make("venv", STOPS="1").returncode != 0
    assert (tmp_path / ".venv/pyvenv.cfg").exists()
    again = make("venv")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("statuses", "runs", "status"),
    [("0", 1, 0), ("1 0", 2, 0), ("1 1", 2, 2), ("2", 1, 2)],  # of pytest: 1 is a failed test, 2 an interrupt
)
def test_what_failed_beside_other_tests_is_tried_once_more_alone(
    make: Make, tmp_path: Path, statuses: str, runs: int, status: int
) -> None:
    assert make("venv", "VENV=made").returncode == 0
    (tmp_path / "statuses").write_text("\n".join([*statuses.split(), ""]))
    script = 'echo "$*" >> calls\nstatus=$(head -n 1 statuses)\nsed -i 1d statuses\nexit "$status"\n'
    (tmp_path / "made/bin/python").write_text(f"#!/bin/sh\n{script}")
    assert make("test", "VENV=made", "ARGS=tests/demo").returncode == status
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == runs
    assert all(call.endswith("tests/demo") for call in calls)
    assert [("--last-failed" in call, "-n" in call.split()) for call in calls] == [(False, True), (True, False)][:runs]
