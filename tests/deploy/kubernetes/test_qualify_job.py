"""The Job that qualifies a node: its command is one of `dsv4`, ends in its time, and asks for the GPUs of its plan."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dsv4_serve.entrypoint.cli.parser import parse
from tests.support.plans import request, resolved
from tests.support.program import ROOT

FILE = ROOT / "deploy/kubernetes/overlays/qualify/job.yaml"
STOPPING, PULLING = 60, 300  # seconds


@pytest.fixture
def job() -> dict[str, Any]:
    spec = yaml.safe_load(FILE.read_text())["spec"]
    assert isinstance(spec, dict)
    return spec


def test_the_command_is_known_and_ends_before_the_job_does(job: dict[str, Any]) -> None:
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    options, rest = parse(container["args"])
    assert rest == []
    assert job["activeDeadlineSeconds"] >= options.minutes * 60 + PULLING
    assert pod["terminationGracePeriodSeconds"] > STOPPING


def test_a_failed_stage_is_not_tried_again_and_its_verdict_is_in_the_status_of_the_pod(job: dict[str, Any]) -> None:
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    [container] = job["template"]["spec"]["containers"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_it_has_the_gpus_of_its_plan_and_writes_into_volumes_only(job: dict[str, Any]) -> None:
    [container] = job["template"]["spec"]["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    plan = resolved(request(hardware="h200", profile=env["PROFILE"], model=env["MODEL"], tp=env["TP"]))
    assert container["resources"]["limits"]["nvidia.com/gpu"] == plan.value("tensor-parallel-size")
    options, _ = parse(container["args"])
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(str(options.out).startswith(f"{path}/") for path in mounted)
    assert {"/tmp", "/dev/shm", "/var/cache/dsv4"} <= {*mounted}
