"""The machine is read once per command, and what a process sees of it follows from its variables."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client.local_replica import free_port
from dsv4_serve.entrypoint.machine.machine import Machine, read_machine
from tests.support import command, pynvml_stand_in
from tools import record_host

RECORDED = Path(__file__).parent / "recorded"
Count = Callable[..., tuple[int, subprocess.CompletedProcess[str]]]


@pytest.fixture
def nvml_reads(tmp_path: Path) -> Count:
    """Run `dsv4` on two H200 and return how often NVML was read, and the process."""
    shutil.copy(pynvml_stand_in.__file__, tmp_path / "pynvml.py")
    vllm = tmp_path / "vllm"
    vllm.write_text("#!/bin/sh\nexit 1\n")
    vllm.chmod(0o755)
    calls = tmp_path / "calls"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "NVML_CALLS": str(calls),
        "DSV4_VLLM": str(vllm),
        "DSV4_HEALTH_PORT": "0",
        "DSV4_RUN_DIR": str(tmp_path / "run"),
        "PORT": str(free_port()),
    }

    def run(*argv: str) -> tuple[int, subprocess.CompletedProcess[str]]:
        calls.write_text("")
        done = command.run(*argv, env=env)
        return len(calls.read_text().splitlines()), done

    return run


def test_the_doctor_reads_nvml_once(nvml_reads: Count) -> None:
    reads, done = nvml_reads("doctor", "--profile", "524k", "--no-collective", "--skip", "shared-memory")
    assert (reads, done.returncode) == (1, 0), done.stdout + done.stderr
    assert "an all-reduce: NVLink connects the GPUs" in done.stdout


def test_serve_reads_nvml_once(nvml_reads: Count, tmp_path: Path) -> None:
    reads, done = nvml_reads("serve", "--profile", "524k", "--skip", "shared-memory", "--supervise.fetch", "false")
    assert "NVML: 2 x NVIDIA H200" in done.stdout, done.stderr
    assert '"memory_mib": 144384' in (tmp_path / "run/plan.json").read_text()
    assert done.returncode == 87, done.stderr  # the checks passed, and the stand-in for vLLM was started
    assert reads == 1


def test_a_plan_reads_nvml_only_where_no_hardware_is_named(nvml_reads: Count) -> None:
    for argv, expected in ((["524k"], 1), (["auto"], 1), (["524k", "--hardware", "h200"], 0)):
        reads, done = nvml_reads("explain", "--profile", *argv)
        assert (reads, done.returncode) == (expected, 0), done.stderr


@pytest.mark.parametrize(("visible", "nodes"), [("3,1", (3, 1)), ("2", (2,)), ("", ())])
def test_a_process_sees_the_gpus_that_its_variables_leave(visible: str, nodes: tuple[int, ...]) -> None:
    machine = record_host.load((RECORDED / "rtx-pro-6000-x4.json").read_text()).machine
    seen = machine.seen_with({"CUDA_VISIBLE_DEVICES": visible})
    assert [gpu.index for gpu in seen.gpus] == list(nodes)
    assert seen.topology.gpus == nodes
    assert {gpu for pair in seen.topology.pairs for gpu in (pair.a, pair.b)} <= set(nodes)
    assert machine.seen_with({}) == machine


def test_numa_nodes_follow_the_order_of_the_gpus() -> None:
    machine = record_host.load((RECORDED / "rtx-pro-6000-x4.json").read_text()).machine
    topology = machine.topology
    assert topology.only((2, 0)).nodes == (topology.nodes[2], topology.nodes[0])
    assert topology.only((2, 9)).gpus == (2,)


def test_this_machine_can_be_read_and_handed_on_as_data() -> None:
    machine = read_machine({})
    assert isinstance(machine, Machine)
    assert (machine.cpu != "", machine.cores) == (True, len(os.sched_getaffinity(0)))
