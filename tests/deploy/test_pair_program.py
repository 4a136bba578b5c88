"""What the program for two replicas on GPUs does to them and records, with a stand-in for vLLM."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded
from qualification.gpu import pair as replicas
from qualification.gpu import run_pair
from tests.deploy.pair import MakePair
from tests.support.balancer import KEY
from tests.support.patience import slowness
from tests.support.program import executable

pytestmark = [pytest.mark.process, pytest.mark.slow]
ONE, OTHER = "127.0.0.2", "127.0.0.3"


def test_gpus_are_divided_and_none_is_left() -> None:
    assert replicas.groups("0,1,2,3", 2) == ["0,1", "2,3"]
    with pytest.raises(ValueError, match="groups of 4"):
        replicas.groups("0,1", 4)


def test_every_step_is_recorded_with_what_clients_lost(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_pair, "PAUSE", 1.0)
    monkeypatch.setattr(run_pair, "TOKENS", 20)
    graces = {"DSV4_SUPERVISE_LIVE_GRACE": "4", "DSV4_SUPERVISE_READY_GRACE": "2", "DSV4_SUPERVISE_DRAIN_WAIT": "4"}
    with make_pair(**graces) as pair:
        run = run_pair.Run(pair, (ONE, OTHER), 60)
        found = {name: step(run) for name, step in run_pair.STEPS.items()}
    assert set(found["start"]["replicas"]) == {ONE, OTHER}
    assert all(one["gpus"] == [] and one["phases"] for one in found["start"]["replicas"].values())
    assert found["drain"] | {"failed": 0, "status": 0} == found["drain"]
    assert found["drain"]["requests"] > 8
    assert found["kill"]["failed"] <= run_pair.CLIENTS
    assert found["kill"]["failed_later"] == 0
    assert found["after kill"]["back_after_ready"] >= 0
    assert found["hang"]["status"] == 83
    assert found["hang"]["exit"]["status"] == 83
    assert set(found["drain"]["answered"]) == {ONE, OTHER}
    for step in (found["drain"], found["kill"], found["hang"]):
        assert OTHER in step["answered"]  # the one that is hurt may not have finished any
        assert sum(step["answered"].values()) + step["failed"] == step["requests"]


def test_a_measurement_goes_through_the_balancer_to_replicas_that_are_all_ready(binary: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "checkpoint")
    program = executable(tmp_path / "vllm", "tests.support.engine")
    environ = {"DSV4_VLLM": str(program), "DSV4_GATE_TOKENS": "8", "DSV4_OPEN_ROUTES": "/health,/seen"}
    words = ["--profile", "demo", "--model", f"demo={model}"]
    with replicas.served(["", ""], words, environ, tmp_path / "pair", 120 * slowness()) as running:
        where = running.endpoint
        assert where.key == KEY
        served = where.models()[0].id
        assert set(running.start["replicas"]) == {ONE, OTHER}
        assert where.plan().to_json()["choices"]["profile"] == "demo"
        answers = [
            httpx.post(
                f"{where.url}/v1/completions",
                json={"model": served, "prompt": "Once", "max_tokens": 1},
                headers={"Authorization": f"Bearer {where.key}"},
                trust_env=False,
            )
            for _ in range(8)
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-replica"] for answer in answers} == {ONE, OTHER}
    assert running.process.poll() is not None


def test_replicas_that_end_are_named_with_their_log(binary: str, tmp_path: Path) -> None:
    words = ["--profile", "no-such-profile"]
    with (
        pytest.raises(ReplicaEnded, match=r"127\.0\.0\.[23]: not ready"),
        replicas.served(["", ""], words, {}, tmp_path / "pair", 120 * slowness()),
    ):
        pass
