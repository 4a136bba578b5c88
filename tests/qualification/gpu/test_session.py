"""Nothing of a server's session is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from qualification.gpu import session
from tests.support.patience import slowness

PROGRAM = """
import os, signal, subprocess, sys
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], process_group=0, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
signal.pause()
"""


def started(*words: str) -> tuple[subprocess.Popen[bytes], int]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    with process.stdout as out:
        return process, int(out.readline())


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone(pid: int) -> bool:
    until = time.monotonic() + 5 * slowness()
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


def test_the_leader_is_asked_and_its_children_in_other_groups_are_killed() -> None:
    process, child = started()
    assert os.getpgid(child) != os.getpgid(process.pid)
    session.end(process, 60 * slowness())
    assert process.returncode == -15
    assert gone(child)


def test_a_leader_that_does_not_end_is_killed() -> None:
    process, child = started("deaf")
    session.end(process, 0.1)
    assert process.returncode == -9
    assert gone(child)
