"""What pages say of four GPUs in sentences and tables that are written by hand: each figure is the one of its result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from qualification.fleet.page import results
from tools import qualification

ROOT = Path(__file__).resolve().parents[2]
RUNS = results("fleet-pair")
FIRST, SECOND = RUNS
KNOWN = qualification.read(ROOT / "qualification" / "results")
PHASES = {
    "starting: imports, processes": ("starting",),
    "connecting ranks": ("connecting ranks",),
    "loading weights": ("loading weights",),
    "compiling kernels": ("compiling kernels",),
    "warming up, proving": ("warming up", "proving"),
}


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    return " ".join(text(page).split())


def served(tp: int) -> list[dict[str, Any]]:
    """Return the results of good drafters with the series at a size, without those of host memory."""
    return [r for r in KNOWN if (r["tp"], r["mtp"], r["stock"]) == (tp, "good", False) and "again" not in r]


def with_patch(name: str) -> list[dict[str, Any]]:
    """Return the results whose patch of that name is the one that is shipped."""
    sha = qualification.shipped()[name]
    return [r for r in KNOWN if not r["stock"] and any(p["sha256"] == sha for p in r["patches"]["patches"])]


def column(link: str) -> dict[str, str]:
    """Return the cells, by phase, of the column of starts on four GPUs whose last row links to a file."""
    section = text("explanation/start.md").partition("### Starts on four GPUs\n")[2]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table[0].splitlines()]
    (at,) = (number for number, cell in enumerate(rows[-1]) if cell.endswith(f"/{link})"))
    return {row[0]: row[at] for row in rows[2:-1]}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["file"])
def test_the_phases_of_both_replicas_are_those_of_their_run(run: dict[str, Any]) -> None:
    replicas = list(run["steps"]["start"]["replicas"].values())
    shown = column(run["file"])
    for title, names in PHASES.items():
        assert shown[title] == ", ".join(f"{sum(one['phases'][name] for name in names):.0f}" for one in replicas)
    assert shown["**until ready**"] == ", ".join(f"{one['ready_after']:.0f}" for one in replicas)
    assert all("capturing graphs" not in one["phases"] for one in replicas)


def test_the_page_about_starts_says_how_long_a_replica_took_to_return() -> None:
    drained, killed = FIRST["steps"]["after drain"], SECOND["steps"]["after kill"]
    said = f"after {drained['ready_again_after']:.0f} s in the first run, where it was drained, and"
    assert f"{said} after {killed['ready_again_after']:.0f} s in the second, where it was" in prose(
        "explanation/start.md"
    )
    changes = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
    assert f"and a restart after one ({killed['ready_again_after']:.0f} s)" in changes


def test_the_page_about_starts_says_when_the_other_servers_of_the_second_run_were_ready() -> None:
    linked = re.findall(r"\[[\w-]+\]\(\S*/([\w.-]+-tp4-vllm0\.32\.0\.json)\)", text("explanation/start.md"))
    boots = [json.loads((ROOT / "qualification/results" / file).read_text())["boot_seconds"] for file in linked]
    assert len(boots) == 4
    assert f"were ready after {min(boots):.0f} to {max(boots):.0f} s" in prose("explanation/start.md")
    assert "and with four in four, of which none failed" in prose("explanation/start.md")


def test_the_pages_say_how_many_requests_both_kills_cost() -> None:
    first, second = (run["steps"]["kill"] for run in RUNS)
    lost = f"{first['failed']} of {first['requests']} and {second['failed']} of {second['requests']} sent"
    assert f"the requests on it are lost, [{lost}]" in text("how-to/shapes.md")
    (answered,) = second["answered"].values()
    assert answered == second["requests"] - second["failed"]
    said = f"Of the {second['requests']} requests of the second kill, the other replica answered the {answered} that did not fail."
    assert said in prose("results/balancer.md")
    assert [gpus for run in RUNS for one in run["steps"]["start"]["replicas"].values() for gpus in one["gpus"]] == [
        0,
        1,
        2,
        3,
    ] * 2
    assert not any("hang" in run["steps"] for run in RUNS)


def test_the_page_about_shapes_names_the_layouts_that_are_half_measured_at_tp_4() -> None:
    ran = {(r["layout"], bool(r["expert_parallel"])) for r in served(4)}
    layouts = {layout for layout, _ in ran}
    without, parallel = (sorted(one for one in layouts if (one, experts) not in ran) for experts in (False, True))
    names = [" and ".join(f"`{one}`" for one in some) for some in (without, parallel)]
    said = f"| at TP=4 {names[0]} without expert parallel, {names[1]} with it; all layouts at TP=8 |"
    assert said in text("how-to/shapes.md")
    whole = re.search(r"at TP=4: (.*?) with expert parallel and without", prose("how-to/shapes.md"))
    assert whole
    assert set(re.findall(r"`([\w-]+)`", whole[1])) == layouts - {*without, *parallel}
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "all")
    changes = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
    both = words[len(layouts - {*without, *parallel})]
    assert f"its known answers at TP=4, {both} of them with expert parallel and without" in changes
    assert not served(8)


def test_what_ran_again_with_a_changed_patch_is_what_results_have() -> None:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "all eight")
    entries = qualification.superseded()
    again = {
        tp: {r["layout"] for r in with_patch("bound-hyper-connection-splits") if r["tp"] == tp} for tp in (4, 2, 1)
    }
    counts = [words[len(layouts)] for layouts in again.values()]
    said = "with it, {} layouts ran again at TP=4, {} at TP=2, and {} at TP=1".format(*counts)
    assert any(
        said in entry["since"] for entry in entries.values() if entry["patch"] == "bound-hyper-connection-splits"
    )
    imported = {r["layout"] for r in with_patch("import-in-spare-processes") if r["tp"] == 4}
    assert entries["import-in-spare-processes"]["since"].endswith(f"at TP=2, and {words[len(imported)]} at TP=4")
