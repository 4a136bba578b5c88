"""Stacks of processes that stand still: a stopped one is read as well as one that sleeps."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

import pytest

from dsv4_serve.entrypoint.supervisor import stack_dump

CODE = "import time\ndef waits_for_a_peer():\n    print('up', flush=True)\n    time.sleep(600)\nwaits_for_a_peer()"


@pytest.mark.parametrize("stopped", [False, True])
def test_the_python_stack_and_the_state_are_reported(stopped: bool) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        if stopped:
            process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        text = asyncio.run(stack_dump.dump([process.pid]))
    finally:
        process.kill()
        process.wait()
    assert f"process {process.pid}" in text
    assert ("T (stopped)" if stopped else "S (sleeping)") in text
    assert "waits_for_a_peer" in text


def test_a_process_that_is_gone_is_reported_as_gone() -> None:
    assert "gone" in asyncio.run(stack_dump.dump([2**22 - 1]))
