import socket
import subprocess
import sys

import psutil

from dsv4_serve.demo import server
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import ServeProcess


def test_what_dsv4_said_is_told_and_what_vllm_said_is_not(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "dsv4: health on port 8001: /startupz\n(EngineCore pid=1) INFO x\ndsv4: MTP gate: 95% of 210\ndsv4: ready\n"
    )
    process = subprocess.Popen(["true"])
    process.wait()
    assert server.messages(ServeProcess(process, 1, 2, log)) == ["MTP gate: 95% of 210", "ready"]


def test_a_held_port_gives_another():
    with socket.socket() as holder:
        holder.bind((local_replica.LOCAL, 0))
        holder.listen()
        held = holder.getsockname()[1]
        assert local_replica.free_port(held) not in {held, 0}
    assert local_replica.free_port(held) == held


def test_stop_ends_a_child_that_takes_no_notice_of_its_parents_end():
    child = "import time; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); print(flush=True); {child}"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    (orphan,) = local_replica.descendants(process.pid)
    local_replica.stop(process)
    assert process.returncode is not None
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
