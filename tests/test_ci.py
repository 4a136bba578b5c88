"""`.ci/programs` installs what is missing, fails where that fails, and says what it may not install."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = dict(re.findall(r" (\w+):(\w+)", (ROOT / ".ci/programs").read_text()))
"""The package of each program."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of programs: those that the script calls, and an apt-get that notes its words."""
    for name in ("sh", "grep"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    write(tmp_path / "id", "echo 0")
    write(tmp_path / "apt-get", f'echo "$RUNLEVEL $*" >> {tmp_path}/calls\n[ "$2" != "$FAILS" ]')
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def programs(place: Path, *, fails: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script as on a Debian where only the programs of the folder are installed."""
    text = (ROOT / ".ci/programs").read_text()
    text = text.replace("PATH=$PATH:/usr/local/sbin:/usr/sbin", "").replace("/etc/os-release", f"{place}/os-release")
    (place / "os-release").write_text("ID=debian\n")
    argv, env = ["sh", "-c", text], {"PATH": str(place), "FAILS": fails}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def test_nothing_is_printed_or_installed_when_all_are_there(place: Path) -> None:
    for name in PROGRAMS:
        write(place / name, "")
    done = programs(place)
    assert (done.returncode, done.stdout, (place / "calls").exists()) == (0, "", False)


def test_what_is_missing_is_installed_and_starts_no_service(place: Path) -> None:
    for name in PROGRAMS.keys() - {"haproxy", "promtool"}:
        write(place / name, "")
    done = programs(place)
    assert (done.returncode, done.stdout) == (0, "installing haproxy prometheus\n")
    *_, installed = (place / "calls").read_text().splitlines()
    assert installed == "1 -qq install --yes --no-install-recommends haproxy prometheus"


@pytest.mark.parametrize("step", ["update", "install"])
def test_an_installation_that_fails_is_a_failure(place: Path, step: str) -> None:
    assert programs(place, fails=step).returncode != 0


@pytest.mark.parametrize("lacks", ["root", "apt-get"])
def test_where_nothing_may_be_installed_the_packages_are_named(place: Path, lacks: str) -> None:
    if lacks == "root":
        write(place / "id", "echo 1000")
    else:
        (place / "apt-get").unlink()
    done = programs(place)
    assert done.returncode == 0
    assert f"skipped: {' '.join(PROGRAMS.values())} (as root on Debian" in done.stdout
    assert not (place / "calls").exists()


@pytest.mark.parametrize("fails", ["", "programs", "venv", "lint", "test"])
def test_a_run_fails_with_any_of_its_steps_and_shows_what_lint_said(tmp_path: Path, fails: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    write(tmp_path / ".ci/programs", f"[ {fails or 'none'} != programs ]")
    write(tmp_path / "make", f"echo make $1\n[ $1 != {fails or 'none'} ]")
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([tmp_path / ".ci/run"], env=path, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == bool(fails), done.stderr
    assert ("make lint" in done.stdout) == (fails == "lint")
    assert ("make test" in done.stdout) == (fails not in ("programs", "venv"))
