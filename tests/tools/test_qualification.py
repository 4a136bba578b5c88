"""docs/results/qualification.md is made from the results, and they are of the series that is shipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.qualify.sizes import Sizes
from qualification.gpu.run_layouts import DEEP
from tools import qualification

ROOT = Path(__file__).resolve().parents[2]
RESULTS = qualification.read(ROOT / "qualification" / "results")
LAYOUTS = ("native", "w4a16", "nvfp4", "acti", "pro")


def test_the_page_is_made_from_the_results() -> None:
    assert (ROOT / "docs/results/qualification.md").read_text(encoding="utf-8") == qualification.page(RESULTS)


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_every_token_and_drafts(layout: str, tp: int) -> None:
    found = [r for r in RESULTS if (r["layout"], r["tp"], r["mtp"], r["stock"]) == (layout, tp, "good", False)]
    assert found
    for result in found:
        assert result["right"] == result["asked"] > 0
        assert result["acceptance"] >= 0.99


def test_the_page_names_the_layouts_that_were_not_served_at_a_size() -> None:
    served = {"result": "served", "expert_parallel": False}
    some = [served | {"layout": name, "tp": tp} for name in ("acti", "pro") for tp in (1, 2)]
    some += [served | {"layout": "pro", "tp": 4, "expert_parallel": True}, served | {"layout": "acti", "tp": 4}]
    some += [{"layout": "pro", "tp": 4, "result": "failed"}]
    lines = qualification.outstanding(some).splitlines()
    assert lines[-3:] == ["| 2 |  | all |", "| 4 | pro | acti |", "| 8 | all | all |"]


@pytest.mark.parametrize("mtp", ["removed", "scrambled"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bad_draft_head_was_refused_or_reported(layout: str, mtp: str) -> None:
    (result,) = [r for r in RESULTS if (r["layout"], r["mtp"], r["stock"]) == (layout, mtp, False)]
    assert result["result"] == ("refused" if mtp == "removed" else "reported")
    assert result["ok"]


def test_results_are_of_the_shipped_series() -> None:
    """A patch that changes has to be measured again, or be told of in superseded.toml, which the page prints."""
    shipped = qualification.shipped()
    for result in RESULTS:
        if not result["stock"]:
            measured = {p["name"]: p["sha256"] for p in result["patches"]["patches"]}
            assert measured.keys() <= shipped.keys(), result["job"]
            assert shipped.keys() - measured.keys() <= qualification.superseded().keys(), result["job"]
            changed = {sha for name, sha in measured.items() if sha != shipped[name]}
            assert changed <= qualification.superseded().keys(), result["job"]
            assert {p["state"] for p in result["patches"]["patches"]} == {"applied"}


def test_the_page_says_how_many_results_are_of_the_shipped_series(monkeypatch: pytest.MonkeyPatch) -> None:
    used = [r for r in RESULTS if not r["stock"]]
    last = {p["name"]: p["sha256"] for p in used[0]["patches"]["patches"]}
    monkeypatch.setattr(qualification, "shipped", lambda: last)
    same = sum({p["name"]: p["sha256"] for p in r["patches"]["patches"]} == last for r in used)
    assert f"\n{same} of {len(used)} results with the series are of the series as it is now.\n" in qualification.notes(
        RESULTS
    )
    assert same


def test_results_name_no_path_of_the_machine_that_made_them() -> None:
    for path in (ROOT / "qualification" / "results").rglob("*.json"):
        assert "/root/" not in path.read_text(encoding="utf-8"), path


def test_caches_restored_from_host_memory_have_a_table_of_their_own() -> None:
    again = [r for r in RESULTS if "again" in r]
    assert {r["layout"] for r in again} >= {"native", "w4a16"}
    for result in again:
        second = result["again"]
        assert (second["right"], second["gpu"]) == (second["asked"], 0)
        assert second["host"] > 0
        assert second["acceptance"] >= 0.99
        assert second["asked"] == 4 * Sizes.answer + 3 * len(DEEP) * Sizes.depth_answer
    counts = f"Of the {len(Sizes.prompts) + 3 * len(DEEP)} prompts, a token far back decides the answers of nine"
    assert counts in " ".join(qualification.page(RESULTS).split())
    assert 3 * len(DEEP) == 9
    found = re.findall(r"Prompt tokens found in host memory: (.+) in each", qualification.page(RESULTS))
    assert found == [f"{int(again[0]['again']['host']):,}"]


def test_prompts_that_share_beginnings_have_a_table_of_their_own() -> None:
    [plain] = [r for r in RESULTS if (r["job"], r["tp"], r["mtp"]) == ("native", 1, "good")][:1]
    shared = {"right": 300, "asked": 320, "drafted": 150, "accepted": 149, "unlike": {}}
    lost = plain | {"tp": 2, "shared": shared | {"unlike": {"799": [0, 0, 0, 0]}}}
    page = qualification.page([plain, plain | {"shared": shared}, lost])
    first, _, second = page.partition("## With prompts that share a beginning")
    assert first.count("| native |") == 1
    assert second.count("| native | mtp, good | 1 | ") == 2
    assert "| 300/320 | 149/150 |" in second
    assert f"not as expected: beginnings of so many tokens, {plain['job']} at TP=2: 799." in second
    right = qualification.page([plain | {"shared": shared}])
    assert "as expected in each." in right
    assert "share a beginning" not in qualification.page([plain])
