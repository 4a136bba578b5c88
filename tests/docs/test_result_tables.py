"""Tables of measured figures in docs/how-to that are written by hand: each figure is the one of its result file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tools.reference import k_by_load

ROOT = Path(__file__).resolve().parents[2]
ENGINES = (ROOT / "docs/how-to/compare-engines.md").read_text(encoding="utf-8")
DRAFTS = (ROOT / "docs/how-to/k-by-load.md").read_text(encoding="utf-8")
FIGURES = {"output_tokens_per_second": ",.1f", "tpot_p50": ".2f", "ttft_p50": ",.0f"}
FASTER = [(256, 1), (256, 4), (1024, 1), (1024, 4)]
"""Tokens in and requests where ours is faster."""

Rows = dict[tuple[int, int], Mapping[str, Any]]


def table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose first line begins so."""
    lines = page[page.index(f"\n{head}") + 1 :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")][1:]


def linked(page: str, name: str) -> dict[str, Any]:
    """Return the result that a page links to under a name or from its file name."""
    [path] = set(re.findall(rf"\.\./\.\./(qualification/results/bench/[\w.-]*-{name}-\w+\.json)", page))
    return json.loads((ROOT / path).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def by_load(result: Mapping[str, Any]) -> Rows:
    return {(row["input"], row["batch"]): row for row in result["rows"]}


THEIRS, OURS = by_load(linked(ENGINES, "sglang-mtp")), by_load(linked(ENGINES, "ours-mtp"))
RATIOS = {at: OURS[at]["output_tokens_per_second"] / row["output_tokens_per_second"] for at, row in THEIRS.items()}


def shown(at: tuple[int, int]) -> list[str]:
    """Return the cells of a row of the table of both engines."""
    cells = [f"{at[0]:,}", f"{at[1]}"]
    for name, form in FIGURES.items():
        ours = OURS[at][name]
        if at not in THEIRS:
            cells += ["cut", format(ours, form), ""]
            continue
        ratio = f"{ours / THEIRS[at][name]:.2f}"
        bold = f"**{ratio}**" if name == "output_tokens_per_second" else ratio
        cells += [format(THEIRS[at][name], form), format(ours, form), bold]
    return cells


def test_the_rows_of_both_engines_are_those_of_their_results() -> None:
    found = table(ENGINES, "| tokens in | requests | tok/s, SGLang |")
    assert found == [shown(at) for at in sorted(OURS)]


def test_the_page_says_in_how_many_rows_each_is_faster() -> None:
    faster = sorted(at for at, ratio in RATIOS.items() if ratio > 1)
    assert faster == FASTER
    behind, most = len(RATIOS) - len(faster), max(RATIOS.values())
    assert f"faster in {behind} of the {len(RATIOS)} rows" in ENGINES
    assert f"by up to {1 / min(RATIOS.values()):.2f} times" in ENGINES
    assert re.search(rf"faster in {len(faster)}, by up to {most:.2f} times", ENGINES)
    assert f"missed in {behind} of {len(RATIOS)}" in ENGINES
    speed = (ROOT / "docs/results/speed.md").read_text(encoding="utf-8").replace("\n", " ")
    assert f"in {behind} of {len(RATIOS)} rows, up to {1 / min(RATIOS.values()):.2f} times ours; ours in 4" in speed
    assert f"up to {most:.2f} times. [The table]" in speed


def test_where_ours_is_faster_only_its_first_token_is() -> None:
    for at in FASTER:
        assert OURS[at]["ttft_p50"] < THEIRS[at]["ttft_p50"] / 2
        assert OURS[at]["tpot_p50"] > THEIRS[at]["tpot_p50"]


def test_the_ranges_of_the_differences_are_those_of_the_rows() -> None:
    first = {at: OURS[at]["ttft_p50"] / row["ttft_p50"] for at, row in THEIRS.items()}
    step = {at: OURS[at]["tpot_p50"] / row["tpot_p50"] for at, row in THEIRS.items()}
    short = [ratio for (tokens, _), ratio in first.items() if tokens < 16000]
    long = [f"{first[16000, batch]:.2f}" for batch in (1, 4, 16)]
    single = [ratio for (_, batch), ratio in step.items() if batch == 1]
    many = [ratio for (_, batch), ratio in step.items() if batch > 1]
    assert f"ours comes after {min(short):.2f} to {max(short):.2f} of SGLang's time" in ENGINES
    assert f"ours comes after {long[0]}, {long[1]} and {long[2]} times SGLang's time" in ENGINES
    assert f"level: {min(single):.2f} to {max(single):.2f} times" in ENGINES
    assert f"ours takes {min(many):.2f} to {max(many):.2f} times as long" in ENGINES


def test_the_steps_and_the_share_of_our_experts_are_those_of_the_results() -> None:
    at = (256, 16)
    theirs = THEIRS[at]["tpot_p50"] * linked(ENGINES, "sglang-mtp")["tokens_a_step"]
    assert f"{theirs:.1f} ms with SGLang, {k_by_load.step(OURS[at], 1).ms:.1f} ms with ours" in ENGINES
    kernels = {
        batch: {one["name"]: one["ms"] for one in families}
        for batch, families in linked(ENGINES, "ours-mtp")["kernels"].items()
    }
    experts, span = kernels["16"]["experts"] / 20, kernels["16"]["span"] / 20
    assert f"{experts:.1f} of {span:.1f} ms of such a step, {experts / span:.0%}" in ENGINES.replace(" %", "%")
    assert f"{kernels['1']['experts'] / kernels['1']['span']:.1%} of a step of one" in ENGINES.replace(" %", "%")


def test_the_rows_of_dspark_are_those_of_its_result() -> None:
    result = linked(ENGINES, "sglang-dspark")
    rows = by_load(result)
    found = table(ENGINES, "| tokens in | requests | tok/s | TPOT")
    figures = [[format(rows[at][name], form) for name, form in FIGURES.items()] for at in sorted(rows)]
    assert found == [[f"{at[0]:,}", f"{at[1]}", *cells] for at, cells in zip(sorted(rows), figures, strict=True)]
    assert f"{result['tokens_a_step']} tokens a step, as SGLang counted them" in ENGINES
    slowest = max(row["ttft_p99"] for (tokens, _), row in rows.items() if tokens == 256)
    assert f"TTFT p99 was {slowest / 1000:.1f} s at most" in ENGINES


KINDS = {
    "no drafts": "none",
    "MTP 1": "mtp-k1",
    "MTP 3": "mtp-k3",
    **{f"DSpark {k}": f"dspark-k{k}" for k in (3, 5, 7)},
}


@pytest.mark.parametrize("name", KINDS)
def test_the_rows_of_a_number_of_drafts_are_those_of_its_result(name: str) -> None:
    [head] = re.findall(r"^\| requests \| \| (.*) \|$", DRAFTS, re.MULTILINE)
    column = 2 + [one.removesuffix(" †") for one in head.split(" | ")].index(name)
    cells = [row[column].removeprefix("**").removesuffix("**") for row in table(DRAFTS, "| requests | | no drafts")]
    drafts = int(name.rsplit(maxsplit=1)[-1]) if name[-1].isdigit() else 0
    for number, batch in enumerate((1, 4, 16, 64)):
        row = by_load(linked(DRAFTS, KINDS[name]))[256, batch]
        tpot, speed, step = cells[3 * number : 3 * number + 3]
        assert tpot == f"{row['tpot_p50']:.2f}"
        assert speed == (r"a stall \*" if row["ttft_p99"] > 5000 else f"{row['output_tokens_per_second']:,.0f}")
        assert step == f"{k_by_load.step(row, drafts).ms:.2f}"
