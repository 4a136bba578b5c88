"""How jobs are named, what a server is started with, and what is kept of a run that is cut off."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from qualification.gpu import run_layouts, this_host, unfold
from qualification.gpu.run_layouts import Job, command, judged, parse_job


@pytest.mark.parametrize(
    ("text", "name", "speculative"),
    [
        ("native", "native", {"method": "mtp", "num_speculative_tokens": 1}),
        ("w4a16:scrambled", "w4a16-mtp-scrambled", {"method": "mtp", "num_speculative_tokens": 1}),
        ("stock/pro@3+ep", "pro-stock-k3-ep", {"method": "mtp", "num_speculative_tokens": 3}),
        ("flash-0731", "flash-0731-k5", {"method": "dspark", "num_speculative_tokens": 5}),
        (
            "flash-0731-nvfp4:holed@7",
            "flash-0731-nvfp4-dspark-holed-k7",
            {"method": "dspark", "num_speculative_tokens": 7},
        ),
    ],
)
def test_a_job_says_what_is_served_and_how(text: str, name: str, speculative: dict[str, object]) -> None:
    job = parse_job(text, 1)
    assert job.name == name
    argv = command("serve --model {name}={model}", job, Path("/c"))
    assert json.loads(argv[argv.index("--speculative-config") + 1]) == speculative
    assert ("--enable-expert-parallel" in argv) == text.endswith("+ep")
    assert argv[argv.index("--skip") + 1] == "architecture-matches"


def test_stock_vllm_is_given_no_option_of_ours() -> None:
    assert "--skip" not in command("vllm serve {model}", parse_job("stock/pro", 1), Path("/c"))


@pytest.mark.parametrize("text", ["fp16", "native:bad", "native@12", "patched/native", "native+tp"])
def test_another_job_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_job(text, 1)


@pytest.mark.parametrize(
    ("drafter", "outcome", "right", "ok"),
    [
        ("good", "served", True, True), ("good", "served", False, False), ("good", "refused", False, False),
        ("holed", "refused", False, True), ("holed", "reported", False, False), ("removed", "served", True, False),
        ("scrambled", "reported", False, True), ("scrambled", "served", True, False),
    ],
)  # fmt: skip
def test_what_a_drafter_promises(drafter: str, outcome: str, right: bool, ok: bool) -> None:
    assert judged(Job("native", drafter, False, 1), outcome, right) == {"ok": ok}


def test_a_result_is_kept_as_soon_as_it_is_there_and_a_cut_record_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_host, "hardware", lambda: ("h200", "1 x NVIDIA H200"))
    monkeypatch.setattr(this_host, "versions", lambda: {"vllm": "0.32.0"})
    record, out = tmp_path / "record.jsonl", tmp_path / "results"
    options = argparse.Namespace(out=str(tmp_path), record=str(record), patches={"series": "0.32.0"})
    for job, result in (("native", "served"), ("acti", "skipped")):
        run_layouts.keep({"job": job, "tp": 1, "stock": False, "result": result}, options)
    with record.open("a") as file:
        file.write('{"file": "w4a16-h200')
    out.mkdir()
    [path] = unfold.unfold(record, out)
    assert path.name == "native-h200-tp1-vllm0.32.0.json"
    assert path.read_text() == (tmp_path / path.name).read_text()
    assert json.loads(path.read_text())["patches"] == {"series": "0.32.0"}


def test_a_server_that_ran_out_of_time_keeps_what_its_log_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("INFO starting\n")
    assert run_layouts.counted(log) == {}
    line = (
        "INFO SpecDecoding metrics: Mean acceptance length: 2.00, Accepted: {} tokens, Drafted: {} tokens, Per-position"
    )
    log.write_text("\n".join(line.format(*pair) for pair in ((168, 168), (72, 75))))
    assert run_layouts.counted(log) == {"accepted": 240, "drafted": 243, "acceptance": 0.9877, "backends": []}
