"""Starting the engine: contracts on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.errors import NotExecutable, NotFound
from dsv4_serve.entrypoint.supervisor import passthrough

ENV = {"PATH": os.environ["PATH"]}


@pytest.mark.parametrize("status", [0, 1, 77])
def test_the_childs_status_is_ours(status: int) -> None:
    assert passthrough.run(["sh", "-c", f"exit {status}"], ENV) == status


def test_a_child_ended_by_a_signal_is_128_plus_its_number() -> None:
    assert passthrough.run(["sh", "-c", "kill -KILL $$"], ENV) == 128 + signal.SIGKILL


def test_arguments_reach_the_child_without_a_shell(tmp_path: Path) -> None:
    odd = ["a b", "$HOME", "'", '{"k": "v"}', ""]
    assert passthrough.run(["sh", "-c", f'printf "%s\\n" "$@" > {tmp_path}/seen', "sh", *odd], ENV) == 0
    assert (tmp_path / "seen").read_text() == "".join(f"{a}\n" for a in odd)


def test_a_command_that_is_not_there_is_127() -> None:
    with pytest.raises(NotFound) as caught:
        passthrough.run(["no-such-command-anywhere"], ENV)
    assert caught.value.exit_status == 127


@pytest.mark.parametrize("body", ["no interpreter line\n", "#!/no/such/interpreter\n"])
def test_a_file_that_cannot_be_executed_is_126(tmp_path: Path, body: str) -> None:
    script = tmp_path / "script"
    script.write_text(body)
    script.chmod(0o755 if body.startswith("#!") else 0o644)
    with pytest.raises(NotExecutable) as caught:
        passthrough.run([str(script)], ENV)
    assert caught.value.exit_status == 126


CHILD = 'trap "echo term; exit 5" TERM; trap "echo int; exit 6" INT; echo ready; while :; do sleep 0.05; done'


@pytest.mark.parametrize(("number", "says", "status"), [(signal.SIGTERM, "term", 5), (signal.SIGINT, "int", 6)])
def test_a_signal_reaches_the_child_once_and_its_status_is_ours(number: int, says: str, status: int) -> None:
    """SIGTERM and SIGINT go on to vLLM; we wait for it and answer with its status."""
    ours = subprocess.Popen(
        [sys.executable, "-m", "dsv4_serve.entrypoint", "sh", "-c", CHILD], stdout=subprocess.PIPE, text=True
    )
    assert ours.stdout is not None
    assert ours.stdout.readline() == "ready\n"
    ours.send_signal(number)
    assert ours.wait(timeout=10) == status
    assert ours.stdout.read() == f"{says}\n"


def test_ctrl_c_in_a_terminal_reaches_the_child_once() -> None:
    """A terminal signals the whole foreground group: the child is not in it, so only our signal arrives."""
    child = "trap 'n=$((n+1)); echo int $n' INT; echo ready; i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done"
    ours = subprocess.Popen(
        [sys.executable, "-m", "dsv4_serve.entrypoint", "sh", "-c", child],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert ours.stdout is not None
    assert ours.stdout.readline() == "ready\n"
    os.killpg(ours.pid, signal.SIGINT)
    assert ours.wait(timeout=20) == 0
    assert ours.stdout.read() == "int 1\n"


def test_serve_starts_the_planned_command_and_ends_with_it(tmp_path: Path) -> None:
    fake = tmp_path / "vllm"
    fake.write_text('#!/bin/sh\necho "$NCCL_PROTO $*" > "$0.seen"\nexit 9\n')
    fake.chmod(0o755)
    env = {**os.environ, "DSV4_VLLM": str(fake), "HARDWARE": "rtx-pro-6000"}
    env["DSV4_SKIP"] = "driver-answers,container-gpus,shared-memory"  # a machine without a GPU
    done = subprocess.run([sys.executable, "-m", "dsv4_serve.entrypoint", "serve"], env=env, timeout=60, check=False)
    assert done.returncode == 87
    assert (tmp_path / "vllm.seen").read_text().startswith("LL serve LordNeel/")


def test_the_child_is_gone_when_we_are_killed_by_term() -> None:
    ours = subprocess.Popen(
        [sys.executable, "-m", "dsv4_serve.entrypoint", "sh", "-c", "echo $$; exec sleep 60"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ours.stdout is not None
    child = int(ours.stdout.readline())
    ours.terminate()
    assert ours.wait(timeout=10) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
