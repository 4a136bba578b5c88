"""`dsv4 serve` checks before it starts vLLM: what is fatal ends it, what is not is logged, and a stop ends the checks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.client.local_replica import free_port
from tests.support import command
from tests.support.patience import slowness

SLOW = """
import asyncio, subprocess, sys
from pathlib import Path
from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervision_settings import defaults
from dsv4_serve.entrypoint.supervisor.context import ServeContext
from dsv4_serve.entrypoint.supervisor.lifecycle import lifecycle

def check():
    print("checking", flush=True)
    subprocess.run(["sleep", "60"], check=False)

async def serve(here):
    plan = Plan({}, {"model": Setting("m", "test"), "port": Setting(1, "test")}, {}, supervision=defaults())
    async with lifecycle(ServeContext({}, "vllm", "127.0.0.1", 0, here / "run", here / "none")) as life:
        await life.admit(plan, Machine())
        await life.unless_stopped(check)
    return life.exit_status

sys.exit(asyncio.run(serve(Path(sys.argv[1]))))
"""


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`dsv4 serve` of the demo with a vLLM that leaves a file when it is started."""
    program = tmp_path / "vllm"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    program.chmod(0o755)
    model = write_checkpoint(tmp_path / "model")

    def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {
            **os.environ,
            "PROFILE": "demo",
            "MODEL": f"demo={model}",
            "DSV4_VLLM": str(program),
            "DSV4_HEALTH_PORT": "0",
            "DSV4_RUN_DIR": str(tmp_path / "run"),
            "PORT": str(free_port()),
            **env,
        }
        return command.run("serve", *argv, env=given)

    return run


def test_a_port_in_use_ends_it_before_vllm_is_started(serve, tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        answer = serve(PORT=str(held.getsockname()[1]))
    assert answer.returncode == 69
    assert "port-free: port" in answer.stderr
    assert "--skip port-free overrides" in answer.stderr
    assert not (tmp_path / "started").exists()
    assert json.loads((tmp_path / "run/last-exit.json").read_text())["cause"] == "host"


def test_every_fault_of_the_checkpoint_is_reported_at_once(serve, tmp_path: Path) -> None:
    shard = tmp_path / "model/model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    (tmp_path / "model/tokenizer.json").unlink()
    answer = serve()
    assert answer.returncode == 78
    assert "shards-whole: " in answer.stderr
    assert "lacks its last 5 bytes" in answer.stderr
    assert "tokenizer-present: " in answer.stderr
    assert not (tmp_path / "started").exists()


def test_what_is_skipped_is_started_and_is_listed_in_the_plan(serve, tmp_path: Path) -> None:
    (tmp_path / "model/tokenizer.json").unlink()
    answer = serve("--skip", "tokenizer-present")
    assert (tmp_path / "started").exists(), answer.stderr
    assert "skip tokenizer-present = true (requested)" in answer.stdout


def test_a_stop_while_looking_ends_it_at_once_with_what_it_started(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "checking":
                break
        ends = time.monotonic() + 10 * slowness()
        while not (below := psutil.Process(process.pid).children(recursive=True)) and time.monotonic() < ends:
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10 * slowness()) == 0
        assert time.monotonic() - began < 2 * slowness()
    assert below
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in below)


def test_serve_starts_the_planned_command_and_ends_with_it(tmp_path: Path) -> None:
    fake = tmp_path / "vllm"
    fake.write_text('#!/bin/sh\necho "$NCCL_PROTO $*" > "$0.seen"\nexit 9\n')
    fake.chmod(0o755)
    env = {**os.environ, "DSV4_VLLM": str(fake), "HARDWARE": "rtx-pro-6000", "MODEL": "acti"}
    env |= {
        "DSV4_RUN_DIR": str(tmp_path / "run"),
        "DSV4_HEALTH_PORT": "0",
        "PORT": str(free_port()),
        "DSV4_SUPERVISE_FETCH": "0",
    }
    env["DSV4_SKIP"] = "driver-answers,container-gpus,shared-memory"  # a machine without a GPU
    done = subprocess.run(
        [sys.executable, "-m", "dsv4_serve.entrypoint", "serve"], env=env, timeout=60 * slowness(), check=False
    )
    assert done.returncode == 87
    assert (tmp_path / "vllm.seen").read_text().startswith("LL serve LordNeel/")


def test_a_stop_while_the_driver_hangs_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text(
        "import time\nclass NVMLError(Exception): pass\ndef nvmlInit(): time.sleep(60)\n"
    )
    argv = [sys.executable, "-m", "dsv4_serve.entrypoint", "serve", "--profile", "524k"]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    environ |= {"DSV4_HEALTH_PORT": "0", "DSV4_RUN_DIR": str(tmp_path / "run")}
    with subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "health on port" in process.stderr.readline()
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10 * slowness()) == 0
    assert json.loads((tmp_path / "run/last-exit.json").read_text())["cause"] == "drained"
