"""What `/plan` says of the replica: its choices, and the machine under it."""

from __future__ import annotations

import json
import os

from dsv4_serve.entrypoint.machine.machine import Machine, read_machine
from dsv4_serve.entrypoint.machine.nvml import Driver, Gpu
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import provenance


def test_a_machine_without_a_gpu_has_its_cpu_and_cores() -> None:
    hardware = provenance.hardware(read_machine({}))
    assert hardware["cpu"]
    assert hardware["cores"] == len(os.sched_getaffinity(0))


def test_only_the_gpus_that_this_process_may_use_are_named() -> None:
    gpus = tuple(Gpu(index, uuid=f"GPU-{index}", name="NVIDIA H200", total=143771 << 20) for index in range(4))
    machine = Machine(Driver("580.159.04", 13000, gpus)).seen_with({"CUDA_VISIBLE_DEVICES": "2,3"})
    hardware = provenance.hardware(machine)
    assert hardware["gpus"] == [{"name": "NVIDIA H200", "memory_mib": 143771}] * 2
    assert hardware["driver"] == "580.159.04"


def test_the_answer_is_json_with_the_names_that_were_selected() -> None:
    plan = Plan({"profile": Setting("64k", "x")}, {"model": Setting("m", "x")}, {})
    answered = json.loads(json.dumps(provenance.replica(plan, Machine())))
    assert answered["choices"] == {"profile": "64k"}
    assert {"argv", "env", "settings", "patches", "versions", "machine"} <= answered.keys()
