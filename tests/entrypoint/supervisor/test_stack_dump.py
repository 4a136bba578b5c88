"""Stacks of processes that stand still: a stopped one is read as well as one that sleeps."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dsv4_serve.entrypoint.supervisor import stack_dump
from tests.support.patience import slowness

CODE = "import time\ndef waits_for_a_peer():\n    print('up', flush=True)\n    time.sleep(600)\nwaits_for_a_peer()"


@pytest.mark.parametrize("stopped", [False, True])
def test_the_python_stack_and_the_state_are_reported(stopped: bool) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        if stopped:
            process.send_signal(signal.SIGSTOP)
        ends, state = time.monotonic() + 30 * slowness(), psutil.STATUS_STOPPED if stopped else psutil.STATUS_SLEEPING
        while psutil.Process(process.pid).status() != state and time.monotonic() < ends:
            time.sleep(0.01)
        time.sleep(0.3)  # it sleeps in the call that is to be seen, and not in a read of its imports
        text = asyncio.run(stack_dump.dump([process.pid]))
    finally:
        process.kill()
        process.wait()
    assert f"process {process.pid}" in text
    assert ("T (stopped)" if stopped else "S (sleeping)") in text
    assert "waits_for_a_peer" in text


def test_a_process_that_is_gone_is_reported_as_gone() -> None:
    assert "gone" in asyncio.run(stack_dump.dump([2**22 - 1]))


PERMISSION = """Permission Denied: Try running again with elevated permissions by going 'sudo env "PATH=$PATH" !!'
Error: Failed to find python version from target process

Stack backtrace:
   0: anyhow::error::<impl anyhow::Error>::msg"""
GONE = """Error: Failed to get process executable name. Check that the process is running.

Stack backtrace:
   0: <E as anyhow::context::ext::StdError>::ext_context"""


def failing_py_spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A py-spy 0.4.3 that fails, and the Python that it is found beside."""
    program = tmp_path / "py-spy"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        ("1\n", "kernel.yama.ptrace_scope of this host is 1; allow it with `sysctl kernel.yama.ptrace_scope=0`"),
        ("0\n", "a security profile (seccomp, AppArmor, SELinux) or another user id forbids ptrace"),
        (None, "a security profile (seccomp, AppArmor, SELinux) or another user id forbids ptrace"),
    ],
)
def test_refused_stacks_are_explained_in_one_sentence_for_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str | None, reason: str
) -> None:
    failing_py_spy(tmp_path, monkeypatch, PERMISSION)
    monkeypatch.setattr(stack_dump, "SCOPE", tmp_path / "scope")
    if scope:
        (tmp_path / "scope").write_text(scope)
    text = asyncio.run(stack_dump.dump([1, 1]))
    assert text.count("no Python stack: reading it was refused\n") == 2
    assert text.splitlines()[-1].startswith("Python stacks cannot be read, because ")
    assert text.count(reason) == 1
    assert "sudo" not in text
    assert "backtrace" not in text


def test_a_failure_of_py_spy_is_kept_without_its_own_backtrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_py_spy(tmp_path, monkeypatch, GONE)
    text = asyncio.run(stack_dump.dump([1]))
    assert text.splitlines()[-1] == GONE.splitlines()[0]


@pytest.mark.parametrize("turns", [0, 1])
def test_a_cancellation_that_meets_the_answer_is_not_lost(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """A second signal cancels the dump; whoever waits for it would wait for ever."""

    async def whole() -> bool:
        answer: asyncio.Future[tuple[bytes, None]] = asyncio.get_running_loop().create_future()

        async def communicate() -> tuple[bytes, None]:
            return await answer

        async def start(*_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(communicate=communicate, returncode=0)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        task = asyncio.create_task(stack_dump._stack(1, "py-spy"))
        for _ in range(3):
            await asyncio.sleep(0)
        answer.set_result((b"stacks", None))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.wait({task})
        return ended or task.cancelled()

    assert asyncio.run(whole())


def holds_ptrace() -> bool:
    """Whether this process may read others, which one without this capability then may not."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 19 & 1) and shutil.which("setpriv") is not None


@pytest.mark.process
@pytest.mark.skipif(not holds_ptrace(), reason="only a process that may read others can give that up")
def test_the_kernels_own_refusal_is_understood() -> None:
    """A process with fewer capabilities may not read this one: what the kernel and the real py-spy say then."""
    program = "import asyncio, sys; from dsv4_serve.entrypoint.supervisor import stack_dump as s;"
    program += " print(asyncio.run(s.dump([int(sys.argv[1])])))"
    weaker = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    argv = [*weaker, sys.executable, "-c", program, str(os.getpid())]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "no Python stack: reading it was refused\n" in done.stdout, done.stdout + done.stderr
    assert "Python stacks cannot be read, because " in done.stdout
    assert "sudo" not in done.stdout


def test_a_py_spy_that_cannot_be_started_leaves_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of processes it cannot, and the reason for the end would be lost."""
    failing_py_spy(tmp_path, monkeypatch, "")
    (tmp_path / "py-spy").write_text("#!/nowhere/sh\n")
    text = asyncio.run(stack_dump.dump([os.getpid()]))
    assert "no Python stack: py-spy could not be started (" in text
    assert f"process {os.getpid()} " in text


def test_a_thread_that_cannot_be_started_leaves_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio starts one to wait for a program."""

    async def refused(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    failing_py_spy(tmp_path, monkeypatch, "")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    text = asyncio.run(stack_dump.dump([os.getpid()]))
    assert "no Python stack: py-spy could not be started (can't start new thread)" in text
