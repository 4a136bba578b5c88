"""The tables of docs/results/faults.md are made from the results."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.vllm_log import exit_cause
from tools import faults

RESULTS = faults.read(faults.RESULTS)
GPU_RUN = {
    "hardware": "2 x NVIDIA H200, 143771 MiB, 580.159.04",
    "versions": {"vllm": "0.32.0"},
    "tp": 2,
    "live_grace": 30,
    "jobs": {
        "good": {
            "ok": True,
            "unready_after": 11.04,
            "ended_after": 40.0,
            "status": 83,
            "exit": {"cause": "hung", "sentence": "no progress", "root": ""},
        },
        "removed": {"ok": False, "error": "Late"},
        "degraded": {"ok": True, "ready_after": 90.0, "said": ["dsv4: WARNING: it drafts noise"]},
    },
}


def test_the_page_is_made_from_the_results() -> None:
    text = faults.PAGE.read_text(encoding="utf-8")
    assert faults.page(text, RESULTS) == text, "run `python -m tools.faults page`"


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result["hardware"])
def test_every_fault_ended_within_its_bound(result: dict) -> None:
    """Those that stand still; with shorter graces than the defaults, so well within."""
    for found in result["faults"]:
        bound = faults.FAULTS[found["fault"]][1]
        if bound:
            assert found["unready"] <= bound[0]
            assert found["ended"] <= bound[1]
            assert found["status"] == exit_cause.HUNG.exit_status


def test_a_run_on_gpus_becomes_a_result_without_the_jobs_that_failed() -> None:
    result = faults.from_gpu(GPU_RUN, "2026-11-22")
    assert [found["fault"] for found in result["faults"]] == ["worker-stopped-busy", "draft-scrambled-degrade"]
    table = faults.faults(result)
    assert "| 11.0 s | 40.0 s |" in table
    assert "| serves | WARNING: it drafts noise |" in table
    assert "2 x NVIDIA H200" in table


def test_a_page_without_a_place_for_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 tables 'faults'"):
        faults.page("# Health\n", [])
