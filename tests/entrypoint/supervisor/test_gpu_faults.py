"""A GPU that fails while vLLM serves: not ready with the cause, what to do, and the end of the story."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.supervisor import gpu_faults
from dsv4_serve.entrypoint.vllm_log import exit_cause, xid
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason
from dsv4_serve.entrypoint.vllm_log.xid import Xid
from dsv4_serve.healthcheck import checks, metrics
from dsv4_serve.healthcheck.state import Health
from tests.support import pynvml_stand_in
from tests.support.patience import slowness
from tests.support.replica import Start

BUS = "0000:0a:00"
OFF_THE_BUS = (
    f"Xid 79 on GPU {BUS} (the GPU has fallen off the bus). Reboot the host; check the GPU's power, temperature"
)
OFF_THE_BUS += " and PCIe slot if it comes again."


def noted(*xids: Xid, matter: bool = True, **environ: str) -> Health:
    health = Health(gpu_faults_matter=matter)
    for each in xids:
        gpu_faults.noting(health, environ)(each)
    return health


def test_a_gpu_that_failed_takes_the_replica_out_with_its_cause() -> None:
    assert checks.gpus(Health(), 0.0).problem == ""
    health = noted(Xid(79, BUS), Xid(64, BUS))
    assert checks.gpus(health, 0.0).problem == (
        f"{OFF_THE_BUS}; Xid 64 on GPU {BUS} (a bad row of memory could not be remapped). Replace the GPU."
    )
    assert not checks.passed(checks.run("ready", health, 0.0))
    assert checks.passed(checks.run("live", health, 0.0)) == checks.passed(checks.run("live", Health(), 0.0))
    text = metrics.as_text(health, 0.0).decode()
    assert f'dsv4_gpu_fault{{gpu="{BUS}",xid="79"}} 1.0' in text
    assert f'dsv4_gpu_fault{{gpu="{BUS}",xid="64"}} 1.0' in text
    assert "dsv4_gpu_fault" not in metrics.as_text(Health(), 0.0).decode()


def test_it_stays_ready_with_a_warning_where_the_settings_say_so(caplog: pytest.LogCaptureFixture) -> None:
    finding = checks.gpus(noted(Xid(79, BUS), matter=False), 0.0)
    assert (finding.problem, finding.warning) == ("", OFF_THE_BUS)
    assert "it stays ready (supervise.gpu-faults)" in caplog.text


@pytest.mark.parametrize("number", [13, 31, 43, 45, 69, 92, 121, 137, 154, 999])
def test_an_error_after_which_the_gpu_works_as_before_changes_nothing(number: int) -> None:
    assert noted(Xid(number, BUS)).gpu_faults == ()


@pytest.mark.parametrize("number", [48, 63, 64, 74, 79, 94, 95, 119, 140, 143])
def test_other_errors_and_every_bad_state_do(number: int) -> None:
    assert len(noted(Xid(number, BUS)).gpu_faults) == 1
    assert len(noted(Xid(xid.RECOVERY, BUS, state=True)).gpu_faults) == 1


def test_in_kubernetes_the_log_has_the_command_that_keeps_pods_off_the_node(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    noted(Xid(48, BUS), KUBERNETES_SERVICE_HOST="10.0.0.1", HOSTNAME="dsv4-0")
    (message,) = caplog.messages
    assert message == (
        "a GPU of this replica has failed, so it gets no more traffic. Reset the GPU (`nvidia-smi -r`); replace it if the"
        " error comes again. Until that is done, keep pods off this node: `kubectl taint nodes $(kubectl get pod dsv4-0 -o"
        " jsonpath={.spec.nodeName}) dsv4/gpu-fault=xid-48:NoSchedule`."
    )
    assert gpu_faults.in_kubernetes(Xid(48, BUS), {}) == ""


def test_a_stop_after_a_fault_names_it() -> None:
    stopped = ExitReason(exit_cause.DRAINED, "stopped after every running request had finished")
    reported = gpu_faults.with_faults(stopped, noted(Xid(79, BUS)))
    assert reported.sentence == f"{stopped.sentence} A GPU had failed: {OFF_THE_BUS}"
    assert reported.xids == (Xid(79, BUS),)
    assert gpu_faults.with_faults(stopped, Health()) == stopped
    named = ExitReason(exit_cause.HUNG, "no progress. Xid 79 …", xids=(Xid(79, BUS),))
    assert gpu_faults.with_faults(named, noted(Xid(79, BUS))) == named


@pytest.mark.process
@pytest.mark.slow
def test_a_replica_whose_gpu_fails_leaves_rotation_and_its_end_has_the_cause(start: Start, tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    (tmp_path / "names/pynvml.py").write_text(Path(pynvml_stand_in.__file__).read_text())
    events = tmp_path / "events"
    env = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "names"), os.environ.get("PYTHONPATH", "")]),
        "NVML_CALLS": str(tmp_path / "calls"),
        "NVML_EVENTS": str(events),
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    }
    with start(**env) as running:
        running.until_ready(60)
        stream = running.stream(100)
        assert stream.began.wait(60 * slowness())
        events.write_text("0 8 31\n1 8 79\n")
        began = time.monotonic()
        running.until(lambda: not running.ready(), 30, "not ready")
        assert time.monotonic() - began < 20
        assert "[-]gpus failed: Xid 79 on GPU 0000:01:00 (the GPU has fallen off the bus)." in running.ask("/readyz")[1]
        assert running.ask("/livez")[0] == 200
        assert 'dsv4_gpu_fault{gpu="0000:01:00",xid="79"} 1.0' in running.ask("/metrics")[1]
        assert "dsv4/gpu-fault=xid-79:NoSchedule" in running.log_text()
        running.until(lambda: stream.done, 60, "the running request is answered")
        running.stop()
        status, _ = running.until_ended(30)
        assert (status, running.last_exit()["xids"][0]["number"]) == (0, 79)
        assert "A GPU had failed: Xid 79" in running.last_exit()["sentence"]
