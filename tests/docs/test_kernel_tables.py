"""Tables of measured kernels of experts in docs/results/speed.md: each figure is the one of its result file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.docs import test_result_tables
from tests.docs.test_result_tables import table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/results/speed.md").read_text(encoding="utf-8")
ENGINES = " ".join((ROOT / "docs/how-to/compare-engines.md").read_text(encoding="utf-8").split())


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


def test_the_page_about_engines_has_the_same_figures() -> None:
    at = GROUPS[32]
    saved = [(GROUPS[tokens]["own_us"] - GROUPS[tokens]["taken_us"]) * 44 / 1000 for tokens in (2, 8)]
    assert f"The tables explain {saved[0]:.2f} and {saved[1]:.2f} ms of it" in ENGINES
    own, taken, theirs = at["own_us"], at["taken_us"], FLASHINFER[32]["products_us"]
    assert f"{own:.1f} µs with Humming's own choice of kernels, {taken:.1f} with the tables" in ENGINES
    assert f"{theirs:.1f} on FlashInfer's" in ENGINES
    at, other = GROUPS[8192], FLASHINFER[8192]
    assert f"{at['own_us']:,.1f}, {at['taken_us']:,.1f} and {other['products_us']:,.1f} µs" in ENGINES
    then, now = ((at[kind] - other["products_us"]) * 43 / 1000 for kind in ("own_us", "taken_us"))
    ours, theirs = (
        8192 / rate * 1000 for rate in (reading(test_result_tables.OURS), reading(test_result_tables.THEIRS))
    )
    assert (
        f"both products in 43 layers explain {then:.0f} of the {ours - theirs:.0f} by" in ENGINES
    )  # before the tables
    assert f"with the tables it would be {now:.0f}. In the newest session" in ENGINES
    assert f"{ours:.0f} ms that such a step took" in ENGINES
    rate = reading(test_result_tables.THEIRS_NEWEST)
    left = f"SGLang read {round(rate, -1):,.0f} tokens a second, so {ours - 8192 / rate * 1000:.0f} of the {ours - theirs:.0f} would"
    assert left in ENGINES
    whole = FLASHINFER[8192]["us"] * 44 / 1000
    assert f"FlashInfer's whole layer alone times 44, {whole:.0f} ms" in ENGINES
    rates = [round(reading(rows), -1) for rows in (test_result_tables.OURS, test_result_tables.THEIRS)]
    assert f"{rates[0]:,.0f} and {rates[1]:,.0f} tokens a second" in ENGINES


def reading(rows: test_result_tables.Rows) -> float:
    """Return the tokens a second at which 48 more prompts of 16,000 tokens are read, by the last first token."""
    few, many = (rows[16000, batch]["ttft_p99"] for batch in (16, 64))
    return float(48 * 16000 / (many - few) * 1000)
