"""`dsv4 report`: one page of everything, which loads nothing, and shows names as text."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dsv4_serve.entrypoint import results
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.evals import task
from dsv4_serve.entrypoint.evals.evaluate import scores
from dsv4_serve.entrypoint.report import page
from tests.support import command
from tests.support.patience import slowness

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "qualification" / "results"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = '<script src="https://example.org/x.js">alert("1")</script>&'
REPLICA = {
    "choices": {"model-name": "w4a16"},
    "machine": {"gpus": [{"name": "NVIDIA H200"}, {"name": "NVIDIA H200"}]},
    "versions": {"vllm": "0.32.0"},
    "patches": {"patches": [{"name": EVIL, "sha256": "ab" * 32, "state": "missing"}]},
}
VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One result of each kind of `dsv4`'s, and the repository's own of layouts and faults."""
    made = tmp_path / "qualification"
    (made / "faults").mkdir(parents=True)
    for path in (RESULTS).glob("*.json"):
        shutil.copy(path, made)
    shutil.copy(RESULTS / "faults" / "h200.json", made / "faults")
    row = {"input": 256, "output": 256, "tpot_p50": 9.0, "tpot_p99": 9.5, "ttft_p50": 90, "ttft_p99": 99}
    speeds = [{**row, "batch": 1, "output_tokens_per_second": 90.5, "acceptance": None}]
    speeds += [{**row, "batch": 4, "output_tokens_per_second": 210.25, "acceptance": 0.89}]
    results.write(made, "bench", {"subject": "speed-of-w4a16", "rows": speeds, "replica": REPLICA})
    checks = [
        {"name": "chat", "verdict": "passed", "seen": EVIL, "fix": "", "seconds": 1.0},
        {"name": "tool call", "verdict": "failed", "seen": "none", "fix": "name the parser", "seconds": 2.0},
    ]
    results.write(made, "smoke", {"subject": "smoke-of-w4a16", "checks": checks, "replica": REPLICA})
    results.write(made, "eval", evaluation(1100))
    return made


def evaluation(correct: int) -> dict[str, Any]:
    counts = dict.fromkeys(task.find("gsm8k").metrics, correct)
    result = {"correct": counts, "correct-of-whole": counts, "total": 1319, "cut": 3}
    found = scores(task.find("gsm8k"), "chat", "w4a16", result)
    return {"subject": "gsm8k-chat-w4a16", "cut": 3, "scores": found, "replica": REPLICA}


class Reader(HTMLParser):
    """Collects tags, addresses and text, and minds that every element ends."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def html(folder: Path) -> str:
    return page.page(results.read(folder), folder, datetime(2026, 11, 22, tzinfo=UTC))


def test_every_kind_has_its_section(folder: Path) -> None:
    text = " ".join(Reader(html(folder)).words)
    for title in ("Measured on", "Patches of vLLM", "Quality", "Speed", "Smoke tests", "Draft gate", "Faults"):
        assert title in text
    for seen in ("2 x NVIDIA H200", "210.2", "89.0%", "1100 of 1319 = 83.4%", "93.7%", "worse", "name the parser"):
        assert seen in text
    assert "tool call failed" in text
    assert re.search(r"(\d+) of \1 as expected", text)


def test_it_loads_nothing_and_runs_nothing(folder: Path) -> None:
    read = Reader(html(folder))
    assert read.open == []
    assert read.addresses == []
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(read.tags)
    assert "url(" not in html(folder)
    assert "@import" not in html(folder)
    assert "default-src 'none'" in html(folder)


def test_foreign_names_and_texts_are_escaped(folder: Path) -> None:
    assert EVIL not in html(folder)
    assert any(EVIL in word for word in Reader(html(folder)).words)


def test_the_plots_are_svg_of_their_own(folder: Path) -> None:
    plots = re.findall(r"<svg.*?</svg>", html(folder), re.DOTALL)
    assert len([plot for plot in plots if "output tokens/s" in plot]) == 1
    assert len([plot for plot in plots if "time per output token" in plot]) == 1
    quality = next(plot for plot in plots if "share of correct answers" in plot)
    drawn = ET.fromstring(quality)
    circles = [one.get("class") for one in drawn.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles == ["ours", "theirs", "theirs"]


def test_it_knows_light_and_dark(folder: Path) -> None:
    assert "prefers-color-scheme: dark" in html(folder)
    assert 'content="light dark"' in html(folder)
    for plot in re.findall(r"<svg.*?</svg>", html(folder), re.DOTALL):
        assert not re.search(r"""(fill|stroke)="|white|#[0-9a-f]{3}""", plot), "a colour of its own"


def test_every_chart_names_its_axis(folder: Path) -> None:
    words = Reader(html(folder)).words
    assert words.count("batch size (concurrent requests)") == 2
    assert words.count("share of correct answers, with its 95% interval") == 1


@pytest.mark.parametrize("name", ["subject", "metric"])
def test_a_name_in_a_plot_is_text(folder: Path, name: str) -> None:
    made = {**evaluation(1100), "subject": EVIL} if name == "subject" else evaluation(1100)
    if name == "metric":
        made["scores"][0]["metric"] = EVIL
    results.write(folder, "eval", made)
    row = {"input": 256, "output": 256, "tpot_p50": 9.0, "tpot_p99": 9.5, "ttft_p50": 90, "ttft_p99": 99}
    speeds = [{**row, "batch": 1, "output_tokens_per_second": 90.5, "acceptance": None}]
    results.write(folder, "bench", {"subject": EVIL, "rows": speeds, "replica": REPLICA})
    assert EVIL not in html(folder)
    assert "script" not in Reader(html(folder)).tags


def test_without_results_it_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no results; `dsv4 qualify`, `dsv4 bench`, `dsv4 smoke` and `dsv4 eval`"):
        page.write(tmp_path, tmp_path / "report.html")


def test_a_malformed_result_is_reported_in_one_sentence(folder: Path) -> None:
    (folder / "eval" / "old.json").write_text(json.dumps({"kind": "eval", "date": "2026-01-01", "subject": "x"}))
    with pytest.raises(ConfigError, match="a result is from another version"):
        page.write(folder, folder / "report.html")


def test_a_share_of_nothing_is_reported_in_one_sentence(folder: Path) -> None:
    score = {"metric": "m", "correct": 0, "total": 0, "interval": [0, 1], "published": []}
    results.write(folder, "eval", {"subject": "x", "cut": 0, "scores": [score]})
    with pytest.raises(ConfigError, match="a result is from another version"):
        page.write(folder, folder / "report.html")


def test_the_command_writes_the_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = command.run("report", "--from", str(folder), "--out", str(out), env=os.environ)
    assert done.stdout == f"{out}: {len(results.read(folder))} results from {folder}\n"
    assert out.read_text().startswith("<!doctype html>")


def test_one_result_is_counted_as_one(tmp_path: Path) -> None:
    results.write(tmp_path, "smoke", {"subject": "x", "checks": [], "replica": {}})
    out = tmp_path / "report.html"
    assert page.write(tmp_path, out) == f"{out}: 1 result from {tmp_path}"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_chromium_draws_it_without_a_complaint(folder: Path, tmp_path: Path) -> None:
    assert CHROMIUM
    out, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write(folder, out)
    argv = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,2600", f"--screenshot={picture}"]
    done = subprocess.run([*argv, out.as_uri()], capture_output=True, text=True, timeout=120 * slowness(), check=True)
    assert "CONSOLE" not in done.stderr, "a resource was refused, or markup is broken"
    assert picture.stat().st_size > 50_000


def test_every_result_of_this_repository_is_on_the_page(tmp_path: Path) -> None:
    said = page.write(RESULTS, tmp_path / "report.html", published=True)
    assert said.endswith(f"{len(results.read(RESULTS))} results from {RESULTS}")
    shown = (tmp_path / "report.html").read_text()
    assert all(kind in shown for kind in ("layout", "faults", "bench", "fleet"))


def mixed(folder: Path) -> Path:
    """One result of the user's, and one that the project published."""
    theirs = folder / "results"
    theirs.mkdir(parents=True)
    (theirs / results.PUBLISHED).touch()
    checks = [{"name": "chat", "verdict": "passed", "seen": "", "fix": "", "seconds": 1.0}]
    results.write(theirs, "smoke", {"subject": "far away", "checks": checks})
    results.write(folder, "smoke", {"subject": "at home", "checks": checks})
    return folder


def test_what_the_project_published_is_shown_on_demand_and_last(tmp_path: Path) -> None:
    folder, out = mixed(tmp_path / "q"), tmp_path / "report.html"
    assert "1 result from" in page.write(folder, out)
    assert "far away" not in out.read_text()
    assert "2 results" in page.write(folder, out, published=True)
    text = out.read_text()
    assert text.index("at home") < text.index("Published by the project") < text.index("far away")


def test_published_results_alone_are_named(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "q")
    shutil.rmtree(folder / "smoke")
    with pytest.raises(ConfigError, match="no results of yours.*1 that this project published; --published shows"):
        page.write(folder, tmp_path / "report.html")


def test_the_repository_marks_what_it_published() -> None:
    assert (RESULTS / results.PUBLISHED).exists()


def test_only_a_failure_is_red(tmp_path: Path) -> None:
    verdicts = ("passed", "skipped", "inconclusive")
    checks = [{"name": one, "verdict": one, "seen": "", "fix": "", "seconds": 1.0} for one in verdicts]
    patches = [{"name": "x", "sha256": "ab" * 32, "state": "pending"}]
    results.write(tmp_path, "smoke", {"subject": "x", "checks": checks, "replica": {"patches": {"patches": patches}}})
    assert 'class="bad"' not in html(tmp_path)
    assert '<b class="none">skipped' in html(tmp_path)
    checks[0]["verdict"] = "failed"
    results.write(tmp_path, "smoke", {"subject": "x", "checks": checks})
    assert '<b class="bad">failed' in html(tmp_path)


def test_the_plot_has_few_lines_and_older_results_are_folded(tmp_path: Path) -> None:
    row = {"input": 256, "output": 256, "tpot_p50": 9.0, "tpot_p99": 9.5, "ttft_p50": 90, "ttft_p99": 99}
    rows = [{**row, "batch": 1, "output_tokens_per_second": 90.5, "acceptance": None}]
    for subject in "abcdeff":
        results.write(tmp_path, "bench", {"subject": subject, "rows": rows})
    text = html(tmp_path)
    assert len(re.findall("<polyline", text)) == 2 * 4
    assert "2 more lines are in the tables below" in text
    assert text.count("<details>") == 3
