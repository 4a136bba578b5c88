"""A first word that is no command: contracts on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.cli import program
from dsv4_serve.entrypoint.errors import NotExecutable, NotFound
from tests.support.patience import slowness

ENV = {"PATH": os.environ["PATH"]}
RUN = "import os, sys; from dsv4_serve.entrypoint.cli import program; sys.exit(program.run(sys.argv[1:], os.environ))"
OURS = [sys.executable, "-c", RUN]


@pytest.fixture
def started_by(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`dsv4 ARGS…` as the child of a program of that name."""

    def run(name: str, *args: str) -> subprocess.CompletedProcess[str]:
        init = tmp_path / name
        init.write_text('#!/bin/sh\n"$@"\nexit $?\n')
        init.chmod(0o755)
        argv = [init, sys.executable, "-m", "dsv4_serve.entrypoint", *args]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60 * slowness(), check=False)

    return run


def test_under_the_images_tini_any_other_first_word_runs_as_a_program(started_by) -> None:
    answer = started_by("tini", "sh", "-c", "echo $0 ran; exit 3")
    assert (answer.returncode, answer.stdout) == (3, "sh ran\n")
    assert (started_by("tini", "servee").returncode, started_by("tini", "/etc/passwd").returncode) == (127, 126)
    assert "Commands of dsv4: serve, " in started_by("tini", "servee").stderr
    assert "did you mean serve?" in started_by("tini", "servee").stderr


@pytest.mark.parametrize("name", ["init", "tini-like"])
def test_elsewhere_it_is_a_mistake_and_nothing_runs(started_by, name: str, tmp_path: Path) -> None:
    answer = started_by(name, "mkdir", str(tmp_path / "made"))
    assert answer.returncode == 64
    assert answer.stderr == "dsv4: 'mkdir' is not a command; see `dsv4 --help`.\n"
    assert not (tmp_path / "made").exists()


def test_the_environment_of_the_image_is_no_proof(monkeypatch: pytest.MonkeyPatch, started_by) -> None:
    """A shell in the container has all of it."""
    for name, value in {"HOME": "/var/cache/dsv4", "USER": "dsv4", "PROFILE": "demo"}.items():
        monkeypatch.setenv(name, value)
    assert started_by("sh", "true").returncode == 64


def test_the_first_process_of_a_container_is_its_entrypoint() -> None:
    argv = ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-m", "dsv4_serve.entrypoint"]
    if subprocess.run([*argv[:5], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this host makes no PID namespace")
    answer = subprocess.run([*argv, "echo", "ran"], capture_output=True, text=True, check=False)
    assert answer.stdout == "ran\n"


@pytest.mark.parametrize("status", [0, 1, 77])
def test_the_childs_status_is_ours(status: int) -> None:
    assert program.run(["sh", "-c", f"exit {status}"], ENV) == status


def test_a_child_ended_by_a_signal_is_128_plus_its_number() -> None:
    assert program.run(["sh", "-c", "kill -KILL $$"], ENV) == 128 + signal.SIGKILL


def test_arguments_reach_the_child_without_a_shell(tmp_path: Path) -> None:
    odd = ["a b", "$HOME", "'", '{"k": "v"}', ""]
    assert program.run(["sh", "-c", f'printf "%s\\n" "$@" > {tmp_path}/seen', "sh", *odd], ENV) == 0
    assert (tmp_path / "seen").read_text() == "".join(f"{a}\n" for a in odd)


def test_a_command_that_is_not_there_is_127() -> None:
    with pytest.raises(NotFound) as caught:
        program.run(["no-such-command-anywhere"], ENV)
    assert caught.value.exit_status == 127


@pytest.mark.parametrize("body", ["no interpreter line\n", "#!/no/such/interpreter\n"])
def test_a_file_that_cannot_be_executed_is_126(tmp_path: Path, body: str) -> None:
    script = tmp_path / "script"
    script.write_text(body)
    script.chmod(0o755 if body.startswith("#!") else 0o644)
    with pytest.raises(NotExecutable) as caught:
        program.run([str(script)], ENV)
    assert caught.value.exit_status == 126


CHILD = 'trap "echo term; exit 5" TERM; trap "echo int; exit 6" INT; echo ready; while :; do sleep 0.05; done'


@pytest.mark.parametrize(("number", "says", "status"), [(signal.SIGTERM, "term", 5), (signal.SIGINT, "int", 6)])
def test_a_signal_reaches_the_child_once_and_its_status_is_ours(number: int, says: str, status: int) -> None:
    """SIGTERM and SIGINT go on to vLLM; we wait for it and answer with its status."""
    ours = subprocess.Popen([*OURS, "sh", "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert ours.stdout is not None
    assert ours.stdout.readline() == "ready\n"
    ours.send_signal(number)
    assert ours.wait(timeout=10 * slowness()) == status
    assert ours.stdout.read() == f"{says}\n"


def test_ctrl_c_in_a_terminal_reaches_the_child_once() -> None:
    """A terminal signals the whole foreground group: the child is not in it, so only our signal arrives."""
    child = "trap 'n=$((n+1)); echo int $n' INT; echo ready; i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done"
    ours = subprocess.Popen(
        [*OURS, "sh", "-c", child],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert ours.stdout is not None
    assert ours.stdout.readline() == "ready\n"
    os.killpg(ours.pid, signal.SIGINT)
    assert ours.wait(timeout=20 * slowness()) == 0
    assert ours.stdout.read() == "int 1\n"


def test_the_child_is_gone_when_we_are_killed_by_term() -> None:
    ours = subprocess.Popen(
        [*OURS, "sh", "-c", "echo $$; exec sleep 60"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ours.stdout is not None
    child = int(ours.stdout.readline())
    ours.terminate()
    assert ours.wait(timeout=10 * slowness()) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 5 * slowness()
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
