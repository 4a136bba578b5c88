import socket
import subprocess
import sys

import psutil
import pytest

from dsv4_serve.demo import server

WORKER_ERROR = "(VllmWorker-0 pid=9466) ERROR 11-22 03:11:38 [multiproc_executor.py:953] "
LOADING = """\
(APIServer pid=12271) INFO 11-22 03:16:38 [api_utils.py:286] non-default args: {'model_tag': 'm', 'port': 8123}
(EngineCore pid=12430) INFO 11-22 03:16:48 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m'
"""


@pytest.mark.parametrize(
    ("log", "phase"),
    [
        ("", "importing vLLM"),
        (LOADING, "starting the worker"),
        (LOADING + "[cpu_model_runner.py:68] Starting to load model m...", "loading the weights"),
    ],
)
def test_the_phase_is_the_last_one_in_the_log(log, phase):
    assert server.phase(log) == phase


def test_the_first_error_is_the_cause_whichever_process_met_it():
    log = (
        LOADING
        + WORKER_ERROR
        + "Traceback (most recent call last):\n"
        + WORKER_ERROR
        + "    raise ValueError(\n"
        + WORKER_ERROR
        + "ValueError: Available memory on node 0 is less than desired\n"
        + "(APIServer pid=12271) RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert server.cause(log) == "ValueError: Available memory on node 0 is less than desired"


def test_a_word_of_dsv4_is_the_cause():
    assert server.cause("# profile demo\ndsv4: profiles/demo.toml: no key modle\n").startswith(
        "dsv4: profiles/demo.toml"
    )


def test_a_held_port_gives_another():
    with socket.socket() as holder:
        holder.bind((server.HOST, 0))
        holder.listen()
        held = holder.getsockname()[1]
        assert server.open_port(held) not in {held, 0}
    assert server.open_port(held) == held


def test_stop_ends_a_child_that_takes_no_notice_of_its_parents_end():
    child = "import time; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); print(flush=True); {child}"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    (orphan,) = server.descendants(process.pid)
    server.stop(process)
    assert process.returncode is not None
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
