"""The verdict, the page, and what may be published."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint import results, shared_result
from dsv4_serve.entrypoint.qualify import command, share
from dsv4_serve.entrypoint.qualify.report import QualifyReport
from dsv4_serve.entrypoint.qualify.run import STAGES
from dsv4_serve.entrypoint.smoke.outcome import Outcome, failed, inconclusive, passed, skipped

REPLICA: dict[str, Any] = {
    "choices": {"model-name": "w4a16", "hardware": "h200", "profile": "64k", "model": "/home/ada/models/w4a16"},
    "argv": ["vllm", "serve", "/home/ada/models/w4a16"],
    "settings": {"model": {"value": "/home/ada/models/w4a16"}, "max-model-len": {"value": 65536}},
    "env": {"NCCL_PROTO": "LL"},
    "patches": {"series": "0.32.0", "patches": [{"name": "one", "sha256": "0" * 64, "state": "applied"}]},
    "versions": {"vllm": "0.32.0", "python": "3.12.3"},
    "machine": {"gpus": [{"name": "NVIDIA H200", "memory_mib": 143771}] * 2, "driver": "580.159.04", "cpu": "EPYC"},
}


def report(**stages: Outcome) -> QualifyReport:
    outcomes = [replace(one, name=name.replace("_", "-"), seconds=1.5) for name, one in stages.items()]
    return QualifyReport(outcomes, REPLICA, "0123456789abcdef", 15.0)


@pytest.mark.parametrize(
    ("stages", "ok", "verdict"),
    [
        ({name: passed("a") for name in STAGES} | {"full-size": skipped("b")}, True, "qualified"),
        ({"host": passed("a"), "known_answers": passed("b")}, True, "the stages of --only passed"),
        ({"known_answers": passed("a"), "load": failed("b", "c")}, False, "not qualified: load failed"),
        (
            {"known_answers": passed("a"), "depth": inconclusive("b")},
            False,
            "not finished: depth; the same command goes on with these",
        ),
        (
            {"host": passed("a"), "known_answers": skipped("no layout")},
            False,
            "nothing was shown: the reason is above (known-answers)",
        ),
        (
            {"all_reduce": skipped("one GPU"), "full_size": skipped("a CPU")},
            False,
            "nothing was shown: the reason is above (all-reduce, full-size)",
        ),
    ],
)
def test_only_what_was_shown_counts(stages: dict[str, Outcome], ok: bool, verdict: str) -> None:
    found = report(**stages)
    assert (found.ok, found.verdict()) == (ok, verdict)
    assert found.text().splitlines()[-1].startswith(f"w4a16-h200-64k: {verdict} (")


def test_a_failed_stage_has_its_fix_below_it() -> None:
    lines = report(known_answers=passed("a"), load=failed("4 answers change", "another backend")).text().splitlines()
    [at] = [number for number, line in enumerate(lines) if "4 answers change" in line]
    assert lines[at + 1] == "    fix: another backend"


def test_the_result_and_its_page_hold_every_stage_and_the_page_loads_nothing(tmp_path: Path) -> None:
    path, page = command.keep(report(host=passed("fine <b>"), load=failed("corrupt", "mend it", changed=3)), tmp_path)
    body = results.read_one(path)
    assert (body["schema"], body["ok"], body["digest"]) == (1, False, "0123456789abcdef")
    assert body["checks"][1]["figures"] == {"changed": 3}
    assert body["replica"]["machine"]["driver"] == "580.159.04"
    html = page.read_text(encoding="utf-8")
    assert "fine &lt;b&gt;" in html
    assert "not qualified: load failed" in html
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#)\S|url\(|@import""", html)


PRIVATE = ["lab-7.example.org", "lab-7", "ada"]


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("32 of 32 tokens right in layout bf16", "32 of 32 tokens right in layout bf16"),
        (
            "the replica ended with status 85; its log is /tmp/dsv4-x/log",
            "the replica ended with status 85; its log is (cut)",
        ),
        ("GPU-5c2f0a11-0000-1111-2222-333344445555 on lab-7 fell off", "(cut) on (cut) fell off"),
        ("user ada, serial 1652823054321", "user (cut), serial (cut)"),
        ("10.0.0.7 does not answer", "(cut) does not answer"),
        ("2001:db8::8a2e:370:7334 does not answer", ""),
        ("cannot read '/home/ada lovelace/w 4'; is it there", "cannot read (cut); is it there"),
        ("c10d::detail and VLLM::Worker_TP1 stopped", "c10d::detail and VLLM::Worker_TP1 stopped"),
        ("HF_TOKEN=hf_abcdefghijklmn is wrong", ""),
        ("canada is no user", "canada is no user"),
        ("146 tokens/s, ~/models and /srv", "146 tokens/s, (cut) and (cut)"),
    ],
)
def test_a_sentence_that_is_published_names_nobody(text: str, published: str) -> None:
    assert share.published(text, PRIVATE) == published


def test_a_shared_file_is_one_that_ci_takes(tmp_path: Path) -> None:
    rows = [
        {"batch": 1, "input": 256, "output": 128, "output_tokens_per_second": 211.0, "tpot_p50": 4.7, "ttft_p50": 80.0}
    ]
    full = passed("211 for 1", rows=rows, weights="dummy weights, synthetic acceptance 0.89")
    outcomes = report(
        host=failed("driver: /usr/lib/x is old on lab-7", "install"), depth=inconclusive("a"), full_size=full
    ).outcomes
    body = share.shared(outcomes, REPLICA, date(2026, 11, 29), PRIVATE)
    shared_result.write(tmp_path / "share.json", body)
    text = (tmp_path / "share.json").read_text()
    assert not [word for word in ("ada", "lab-7", "/usr", "/home", "/models") if word in text]
    read = json.loads(text)
    assert [one["verdict"] for one in read["checks"]] == ["fail", "skip", "pass"]
    assert read["rows"][0]["output_tokens_per_second"] == 211.0
    assert shared_result.problems({**read, "who": "ada"}, date(2026, 11, 30), ["h200"]) == []
