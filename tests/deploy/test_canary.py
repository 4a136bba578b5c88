"""`dsv4 canary` with a real HAProxy and real supervisors: a share for a candidate, promoted or rolled back."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from dsv4_serve.demo.llama import write_checkpoint
from tests.deploy.stage import CANARY_KEY, CANDIDATE, STABLE, Stage, staged
from tests.support import load
from tests.support.balancer import KEY, Names, balancer
from tests.support.patience import slowness
from tests.support.program import executable

pytestmark = [pytest.mark.process, pytest.mark.slow]
QUICK = ("--minutes-per-step", "0.03", "--least-drafts", "100", "--least-requests", "5")


@pytest.fixture(scope="module")
def make_stage(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Stage]]:
    """Stand-ins for vLLM; keywords are variables of the candidate."""
    model = write_checkpoint(tmp_path_factory.mktemp("checkpoint"))

    def make(**of_candidate: str) -> AbstractContextManager[Stage]:
        folder = tmp_path_factory.mktemp("stage")
        program = executable(folder / "vllm", "tests.support.engine")
        settings = {"PROFILE": "demo", "MODEL": f"demo={model}", "DSV4_VLLM": str(program)}
        return staged(folder, binary, settings, of_candidate, {})

    return make


@pytest.fixture(scope="module")
def stage(make_stage: Callable[..., AbstractContextManager[Stage]]) -> Iterator[Stage]:
    """A candidate that is as good as the stable replica."""
    with make_stage() as made:
        yield made


def test_the_share_requires_its_own_key_and_ends_by_itself(stage: Stage) -> None:
    assert [stage.share(key).status_code for key in ("wrong", KEY, CANARY_KEY)] == [401, 401, 200]
    for wrong in ("101", "-1", "5%", "05", "5, 999", "999, 5"):
        assert stage.share(X_Share=wrong, X_Seconds="60").status_code == 400
    assert stage.share(X_Share="5").status_code == 400
    seconds = round(3 * slowness(5))
    assert stage.share(X_Share="100", X_Seconds=str(seconds)).json() == {"share": 100, "seconds": seconds}
    assert set(stage.served_by(5)) == {CANDIDATE}
    stage.candidate.until(lambda: stage.share().json()["seconds"] < 0, 2 * seconds, "the end of the share")
    assert set(stage.served_by(5)) == {STABLE}


def test_a_name_in_the_file_of_the_canary_key_opens_nothing(binary: str, tmp_path: Path) -> None:
    """HAProxy takes the first word of a line; in a key file that is a name, which anybody may guess."""
    (tmp_path / "canary-key").write_text(f"operators {CANARY_KEY}\n")
    settings = {"CANDIDATE_NAME": "candidate", "CANARY_KEY_FILE": str(tmp_path / "canary-key")}
    with balancer(tmp_path / "b", Names(), binary=binary, **settings) as running:
        for key in ("operators", CANARY_KEY):
            headers = {"Authorization": f"Bearer {key}"}
            url = f"http://127.0.0.1:{running.status_port}/canary"
            assert httpx.get(url, headers=headers, trust_env=False).status_code == 401


def test_a_session_keeps_its_side_while_the_share_grows(stage: Stage) -> None:
    def sides() -> set[str]:
        with stage.balancer.client() as client:
            return {
                session
                for session in map(str, range(40))
                if client.get("/v1/models", headers={"X-Session-ID": session}).status_code == 200
                and client.post("/v1/completions", json={"max_tokens": 1}, headers={"X-Session-ID": session}).headers[
                    "x-replica"
                ]
                == CANDIDATE
            }

    among = []
    for share in ("0", "25", "60", "100"):
        stage.share(X_Share=share, X_Seconds="30")
        among.append(sides())
    assert among[0] == set()
    assert len(among[3]) == 40
    assert 0 < len(among[1]) < len(among[2]) < 40
    assert among[1] < among[2]


def test_a_good_candidate_is_promoted_and_no_stream_is_lost(stage: Stage) -> None:
    stage.share(X_Share="0", X_Seconds="1")
    with load.load(stage.balancer.url, clients=4, tokens=30) as steady:
        status, result = stage.canary(*QUICK, "--steps", "50,100")
    assert steady.failed() == []
    assert {one.replica for one in steady.outcomes} == {STABLE, CANDIDATE}
    assert (status, result["ok"]) == (0, True), result["verdict"]
    assert [step["share"] for step in result["steps"]] == [50, 100]
    assert set(stage.served_by(5)) == {CANDIDATE}
    again = subprocess.run(stage.argv(*QUICK), capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "An earlier canary was promoted: 100 %" in again.stderr
    assert subprocess.run(stage.argv("--roll-back"), check=False).returncode == 0
    assert set(stage.served_by(5)) == {STABLE}


def test_without_traffic_nothing_is_promoted(stage: Stage) -> None:
    status, result = stage.canary("--minutes-per-step", "0.01", "--steps", "50")
    assert status == 1
    assert "not enough evidence" in result["verdict"]
    assert stage.share().json()["share"] == 0


def test_a_dry_run_changes_nothing(stage: Stage) -> None:
    stage.share(X_Share="0", X_Seconds="1")
    assert stage.canary("--dry-run", "--steps", "5,50") == (0, {"steps": [5, 50], "candidates": 1})
    assert stage.share().json()["share"] == 0


def test_a_stop_rolls_back(stage: Stage) -> None:
    process = subprocess.Popen(stage.argv("--steps", "40,50"), stdout=subprocess.PIPE)
    stage.candidate.until(lambda: stage.share().json()["share"] == 40, 20, "the first step")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20 * slowness())
    assert process.returncode == 143
    assert json.loads(out)["verdict"] == "Rolled back at 40 %: it was stopped."
    assert stage.share().json()["share"] == 0


def test_a_candidate_that_drafts_noise_is_rolled_back_though_it_answers(
    make_stage: Callable[..., AbstractContextManager[Stage]],
) -> None:
    with (
        make_stage(STAND_IN="scrambled", DSV4_GATE_BELOW_FLOOR="warn") as stage,
        # answers so short that the drafts that are required take more requests than are required
        load.load(stage.balancer.url, clients=4, tokens=10) as steady,
    ):
        status, result = stage.canary(*QUICK, "--steps", "50")
    assert steady.failed() == []
    assert status == 1
    assert result["verdict"].startswith("Rolled back at 50 %: candidates accept 0% of ")
    found = {one["rule"]: one["state"] for one in result["steps"][0]["findings"]}
    assert (found["acceptance"], found["answers"], found["errors"]) == ("bad", "good", "good")
