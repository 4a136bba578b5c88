"""Only MoE backends that `dsv4 qualify` found right on these GPUs are tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.tune import qualified
from tests.support.program import ROOT

MEASURED = ROOT / "qualification/results/qualify/w4a16-h200-64k-20261129T133517Z.json"
MACHINE = {"gpus": [{"name": "NVIDIA H200", "memory_mib": 143771}], "driver": "580.159.04"}


def result(folder: Path, changes: dict[str, str], backend: str = "marlin") -> None:
    """Keep the measured result for a backend, with other verdicts."""
    body: dict[str, Any] = json.loads(MEASURED.read_text())
    body["replica"]["argv"] += ["--moe-backend", backend]
    for check in body["checks"]:
        check["verdict"] = changes.get(check["name"], check["verdict"])
    (folder / "qualify").mkdir(exist_ok=True)
    (folder / f"qualify/{backend}.json").write_text(json.dumps(body))


def test_a_backend_that_passed_here_is_tried_whatever_became_of_the_other_stages(tmp_path: Path) -> None:
    result(tmp_path, {"depth": "failed"})
    assert qualified.here(tmp_path, "w4a16", MACHINE) == {"marlin"}
    assert qualified.why_not("marlin", qualified.here(tmp_path, "w4a16", MACHINE), "64k", "w4a16") == ""


@pytest.mark.parametrize("stage", qualified.STAGES)
@pytest.mark.parametrize("verdict", ["failed", "inconclusive"])
def test_a_backend_that_did_not_pass_is_not(tmp_path: Path, stage: str, verdict: str) -> None:
    result(tmp_path, {stage: verdict})
    assert not qualified.here(tmp_path, "w4a16", MACHINE)


def test_a_plan_of_one_request_has_no_load_to_pass(tmp_path: Path) -> None:
    result(tmp_path, {"load": "skipped"})
    assert qualified.here(tmp_path, "w4a16", MACHINE)
    result(tmp_path, {"known-answers": "skipped"})
    assert not qualified.here(tmp_path, "w4a16", MACHINE)


def test_other_gpus_and_other_models_prove_nothing(tmp_path: Path) -> None:
    result(tmp_path, {})
    assert not qualified.here(tmp_path, "acti", MACHINE)
    assert not qualified.here(tmp_path, "w4a16", {"gpus": [{"name": "NVIDIA B300"}]})
    assert not qualified.here(tmp_path, "w4a16", {})


def test_a_damaged_result_is_passed_over(tmp_path: Path) -> None:
    result(tmp_path, {})
    (tmp_path / "qualify/broken.json").write_text("{")
    (tmp_path / "qualify/other.json").write_text('{"kind": "qualify", "date": "2026-11-29", "replica": {"argv": "no"}}')
    assert qualified.here(tmp_path, "w4a16", MACHINE) == {"marlin"}


def test_the_reason_is_the_command_that_qualifies_it() -> None:
    why = qualified.why_not("triton", frozenset({"marlin"}), "64k", "w4a16")
    assert "`dsv4 qualify --profile 64k --model w4a16 --moe-backend triton --only known-answers" in why


@pytest.mark.parametrize("checks", [None, 3, "x", [None], [{"name": "load"}, "x"]])
def test_checks_that_are_none_pass_nothing(tmp_path: Path, checks: object) -> None:
    result(tmp_path, {})
    path = tmp_path / "qualify/marlin.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": checks}))
    assert not qualified.here(tmp_path, "w4a16", MACHINE)
