"""What `docker run IMAGE WORDS…` does with words: a command, flags, a program, or a slip."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from .conftest import ANY_UID, HARDENED, Container, Image, podman

pytestmark = pytest.mark.slow


def run(image: Image, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the image as a user types it, with options of `podman run` before its name."""
    return podman("run", "--rm", *options, image.name, *words, check=False)


def test_a_word_that_is_no_command_runs_as_a_program_with_its_status(image: Image) -> None:
    assert run(image, "ls", "/usr/share/dsv4").stdout.split() == ["build.json", "demo", "sbom.json"]
    done = run(image, "bash", "-c", 'echo "$0 $1"; exit 7', "a b", "$HOME")
    assert (done.returncode, done.stdout) == (7, "a b $HOME\n")


def test_a_slip_is_neither_command_nor_program(image: Image) -> None:
    done = run(image, "servee")
    assert done.returncode == 127
    assert done.stderr.startswith("dsv4: servee: not found, neither as a path nor on PATH")
    assert done.stderr.endswith("(did you mean serve?).\n")
    assert done.stdout == ""


def test_another_init_before_tini_changes_nothing_and_tini_does_not_complain(image: Image) -> None:
    done = run(image, "sh", "-c", "cat /proc/1/comm; exit 7", options=("--init",))
    assert done.returncode == 7
    assert done.stdout != "tini\n"
    assert done.stderr == ""


def test_dsv4_as_the_first_process_runs_programs_and_in_a_shell_it_does_not(image: Image) -> None:
    first = run(image, "echo", "ran", options=("--entrypoint=dsv4",))
    assert (first.returncode, first.stdout) == (0, "ran\n")
    shell = run(image, "-c", "dsv4 echo ran; echo $?", options=("--entrypoint=sh",))
    assert shell.stdout == "64\n"
    assert shell.stderr.startswith("dsv4: 'echo' is not a command")


@pytest.fixture(scope="module")
def idle(image: Image) -> Iterator[Container]:
    """A container that waits."""
    name = podman("run", "--detach", *HARDENED, f"--user={ANY_UID}", image.name, "sleep", "600").stdout.strip()
    try:
        yield Container(name, 0)
    finally:
        podman("rm", "--force", "--time=0", "--volumes", name)


def test_exec_takes_commands_only(idle: Container) -> None:
    done = idle.run("dsv4", "mkdir", "/tmp/made", check=False)
    assert (done.returncode, done.stderr) == (64, "dsv4: 'mkdir' is not a command; see `dsv4 --help`.\n")
    assert idle.run("ls", "/tmp").stdout == ""
    assert "did you mean serve?" in idle.run("dsv4", "servee", check=False).stderr
    assert idle.run("dsv4", "version").returncode == 0


def test_whatever_the_flags_it_listens_where_ports_are_published(image: Image) -> None:
    for words in (("serve", "--dry-run"), ("--dry-run", "--max-num-seqs", "2"), ("explain",)):
        done = run(image, *words)
        assert done.returncode == 0, words
        assert "--host 0.0.0.0" in done.stdout, words
        assert "127.0.0.1" not in done.stdout, words
