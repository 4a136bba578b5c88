"""`dsv4 serve` over a stand-in that prints the log of a reported failure and ends, four at a time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from tests.entrypoint.supervisor.conftest import quick
from tests.entrypoint.vllm_log.cases import CASES, Case
from tests.support.program import executable
from tests.support.replica import replica

EVERY_CASE = bool(os.environ.get("TEST_DEEP"))
pytestmark = [pytest.mark.process, pytest.mark.slow, *([pytest.mark.deep] if EVERY_CASE else [])]


@pytest.mark.parametrize("serving", [False, True], ids=["during the start", "while serving"])
def test_a_reported_failure_ends_with_its_status_and_its_root(tmp_path: Path, serving: bool) -> None:
    """One of each status; `make test-deep` replays every one, and test_cases.py reads every log."""
    program = executable(tmp_path / "vllm", "tests.support.stand_in")
    model = write_checkpoint(tmp_path / "model")

    def wrong(case: Case) -> list[str]:
        """What differs from the case."""
        folder = tmp_path / case.name
        folder.mkdir()
        log, now = folder / "vllm.log", folder / "now"
        log.write_bytes(case.log)
        settings = {"MODEL": f"demo={model}", "DSV4_VLLM": str(program), "STAND_IN": "replay", "REPLAY_LOG": str(log)}
        settings |= quick() | ({"REPLAY_WHEN": str(now)} if serving else {})
        with replica(
            folder / "replica", model_name="stand-in", seconds_to_stop=15, PROFILE="demo", **settings
        ) as running:
            if serving:
                running.until_ready(60)
                now.touch()
            status, _ = running.until_ended(60)
            root = running.last_exit()["root"]
        return [f"status {status}"] * (status != case.status) + [words for words in case.root if words not in root]

    cases = [case for case in CASES if case.serving is serving]
    if not EVERY_CASE:
        cases = list({case.status: case for case in cases}.values())
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip([case.name for case in cases], pool.map(wrong, cases), strict=True))
    assert {name: differences for name, differences in found.items() if differences} == {}
