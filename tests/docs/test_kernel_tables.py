"""Tables of measured kernels of experts in docs/results/speed.md: each figure is the one of its result file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_result_tables import table
from tools.engines import sessions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/results/speed.md").read_text(encoding="utf-8")
ENGINES = " ".join((ROOT / "docs/results/engines.md").read_text(encoding="utf-8").split())


def result(name: str) -> dict[str, Any]:
    """Return the result of kernels that the page links to."""
    [file] = (ROOT / "qualification/results/kernels").glob(f"{name}-tp2-h200-*.json")
    assert f"(../../{file.relative_to(ROOT)})" in PAGE
    return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def kept(name: str) -> dict[int, dict[str, Any]]:
    """Return its rows, by tokens."""
    return {row["tokens"]: row for row in result(name)["rows"]}


GROUPS, TOKENS, FLASHINFER, INT4 = (
    kept("humming-mxfp4-fp8"),
    kept("humming-mxfp4-fp8token"),
    kept("flashinfer-mxfp4-fp8token"),
    kept("humming-int4"),
)
SHOWN = (2, 8, 16, 32, 64, 128, 256, 384, 1024, 2048, 4096, 8192)


def test_the_rows_are_those_of_the_results() -> None:
    expected = []
    for tokens in SHOWN:
        row, other = GROUPS[tokens], FLASHINFER.get(tokens)
        cells = [*common(row), reads(row, "taken")]
        us = other["products_us"] if other else 0.0
        expected.append([*cells, *([f"{us:,.1f}", f"{row['taken_us'] / us:.2f}"] if us else ["", ""])])
    assert table(PAGE, "| tokens | Humming's choice |") == expected
    assert set(FLASHINFER) <= set(SHOWN)


def common(row: dict[str, Any]) -> list[str]:
    """Return a row's tokens, microseconds of Humming's choice and of the table, and their ratio."""
    cells = [f"{row['tokens']:,}", f"{row['own_us']:,.1f}", f"{row['taken_us']:,.1f}"]
    return [*cells, f"**{row['taken_us'] / row['own_us']:.2f}**"]


def reads(row: dict[str, Any], who: str) -> str:
    """Return the share of the bandwidth at which the slower of both products reads its weights."""
    return f"{min(row[product][who]['share'] for product in ('w13', 'w2')):.0%}".replace("%", " %")


def test_the_rows_of_int4_experts_are_those_of_their_result() -> None:
    expected = [[*common(INT4[tokens]), reads(INT4[tokens], "own"), reads(INT4[tokens], "taken")] for tokens in SHOWN]
    assert table(PAGE, "| tokens | Humming's choice, INT4 |") == expected
    text = " ".join(PAGE.split())
    least, most = reads(GROUPS[32], "own"), reads(INT4[32], "own")
    assert f"at 32 tokens it reads at {most} of the bandwidth, and at {least} for MXFP4" in text
    tried = [result(name)["tried"] for name in ("humming-mxfp4-fp8", "humming-int4")]
    (one, two), (three, four) = ((each["w13"], each["w2"]) for each in tried)
    assert f"of {one} and {two} schedules for MXFP4 experts with FP8 inputs, and of {three} and {four} for INT4" in text


def test_the_page_says_how_well_the_choice_of_humming_repeats() -> None:
    text = " ".join(PAGE.split())
    drifts = []
    for rows, slow, limit in ((INT4, range(96, 385), 0.04), (GROUPS, (64, 96, 256), 0.02)):
        again = {
            tokens: sum(row[product]["own_again_us"] for product in ("w13", "w2")) / row["own_us"]
            for tokens, row in rows.items()
        }
        longer = [ratio - 1 for tokens, ratio in again.items() if tokens in slow]
        assert max(abs(ratio - 1) for tokens, ratio in again.items() if tokens not in slow) < limit
        drifts.append(f"{min(longer) * 100:.0f} to {max(longer) * 100:.0f} %")
    assert f"{drifts[0]} longer at 96 to 384 tokens with INT4, and were within 4 % elsewhere" in text
    assert f"with MXFP4 {drifts[1]} longer at 64, 96 and 256 tokens, and within 2 % elsewhere" in text


def test_other_pages_have_the_ranges_of_the_results() -> None:
    def span(rows: dict[int, dict[str, Any]], low: int, high: int) -> str:
        here = [row["ratio"] for tokens, row in rows.items() if low <= tokens <= high]
        return f"{min(here):.2f} to {max(here):.2f}"

    found = table((ROOT / "docs/how-to/tune.md").read_text(encoding="utf-8"), "| experts | 2 to 256 tokens of a step |")
    assert [row[1:3] for row in found] == [[span(rows, 2, 256), span(rows, 384, 8192)] for rows in (GROUPS, INT4)]
    changes = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
    told = f"{span(GROUPS, 2, 256)} times as long at 2 to 256 tokens, {span(GROUPS, 384, 8192)} times at more"
    assert told in changes
    assert f"INT4 experts, {span(INT4, 2, 8192)} times as long" in changes


def test_the_text_has_the_figures_of_the_results() -> None:
    prose = " ".join(PAGE.split())
    around = [row["us"] - row["products_us"] for tokens, row in FLASHINFER.items() if tokens <= 256]
    long = FLASHINFER[8192]
    most = long["us"] - long["products_us"]
    assert f"{min(around):.0f} to {max(around):.0f} µs more up to 256 tokens, {most:.0f} at 8,192" in prose
    assert f"(its whole layer: {long['us']:,.1f})" in prose
    each = [f"{TOKENS[tokens]['taken_us']:,.1f}" for tokens in (2048, 4096, 8192)]
    assert f"Humming takes {each[0]}, {each[1]} and {each[2]} µs at 2,048, 4,096 and 8,192 tokens" in prose
    alike = [TOKENS[tokens]["taken_us"] / GROUPS[tokens]["taken_us"] for tokens in GROUPS if tokens <= 384]
    assert max(abs(ratio - 1) for ratio in alike) < 0.045
    assert "as long as with groups up to 384, within 4 %" in prose


def test_the_tables_explain_what_the_page_says_of_two_gpus() -> None:
    saved = [(GROUPS[tokens]["own_us"] - GROUPS[tokens]["taken_us"]) * 44 / 1000 for tokens in (2, 8)]
    assert f"The tables explain {saved[0]:.2f} and {saved[1]:.2f} ms of it" in " ".join(PAGE.split())


def test_the_page_about_engines_says_which_products_are_faster() -> None:
    both = {tokens: (GROUPS[tokens], other["products_us"]) for tokens, other in FLASHINFER.items()}
    assert {tokens for tokens, (row, us) in both.items() if row["taken_us"] < us} == {t for t in both if t <= 1024}
    assert {t for t, (row, us) in both.items() if t <= 1024 and row["own_us"] > us} == {t for t in both if t <= 128}
    assert "take less time than FlashInfer's, which SGLang runs, up to 1,024 tokens" in ENGINES
    assert "they take more up to 128 |" in ENGINES
    assert "less time than Humming's from 2,048 tokens of a step on, with measured kernels too" in ENGINES


def test_the_page_about_engines_says_what_products_explain_of_a_prompt() -> None:
    row, other = GROUPS[8192], FLASHINFER[8192]
    pair = next(one for one in sessions.read() if one.session.title == "2026-11-30, 12:38 UTC")
    newest = sessions.read()[0]
    ours, theirs, later = (
        8192 / (side.result.reading() or 0) * 1000 for side in (pair.ours, pair.theirs, newest.theirs)
    )
    tokens = [f"{side.result.reading():,.0f}" for side in (pair.theirs, newest.theirs)]
    assert f"own step was {later - theirs:.0f} ms longer in the session of 22:59 ({' against '.join(tokens)}" in ENGINES
    assert f"tokens a second: {theirs:.0f} and {later:.0f} ms)" in ENGINES
    then, now = ((row[kind] - other["products_us"]) * 43 / 1000 for kind in ("own_us", "taken_us"))
    assert f"step of 8,192 tokens was {ours - theirs:.0f} ms shorter" in ENGINES
    assert f"explain {then:.0f} of the {ours - theirs:.0f} ms, and with measured kernels {now:.0f}." in ENGINES
    prompt = result_of("flash-h200-tp2-sglang-dummy-sglang-mtp-20261130T230118Z")["kernels"]["prompt 16000"]
    [experts] = [one["ms"] for one in prompt if one["name"] == "experts"]
    assert experts / 2 == pytest.approx(other["us"] * 44 / 1000, rel=0.03)  # two steps
    assert "FlashInfer's whole layer alone, times 44, with the draft layer" in ENGINES


def result_of(name: str) -> dict[str, Any]:
    return json.loads((sessions.FOLDER / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
