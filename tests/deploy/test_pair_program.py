"""What the program for two replicas on GPUs does to them and records, with a stand-in for vLLM."""

from __future__ import annotations

import pytest

from qualification.gpu import pair as replicas
from qualification.gpu import run_pair
from tests.deploy.pair import MakePair

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
    assert OTHER in found["hang"]["answered"]
