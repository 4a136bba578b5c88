"""Tables of measured figures in docs/how-to that are written by hand: each figure is the one of its result file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.numerics.compare import FLOORS
from tools.reference import k_by_load

ROOT = Path(__file__).resolve().parents[2]
ENGINES = (ROOT / "docs/how-to/compare-engines.md").read_text(encoding="utf-8")
DRAFTS = (ROOT / "docs/how-to/k-by-load.md").read_text(encoding="utf-8")
FIGURES = {"output_tokens_per_second": ",.1f", "tpot_p50": ".2f", "ttft_p50": ",.0f"}
FASTER = [(256, 1), (256, 4), (256, 16), (1024, 1), (1024, 4), (1024, 16), (16000, 1)]
"""Tokens in and requests where ours has as many tokens a second, or more."""
STOPPED = (256, 64)
"""The row in which all streams of ours stood still."""
NOW, BEFORE = "20261130T124231Z", "20261130T094227Z"
"""The sessions with FP8 and with BF16 inputs of our experts."""

Rows = dict[tuple[int, int], Mapping[str, Any]]


def table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose first line begins so."""
    lines = page[page.index(f"\n{head}") + 1 :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")][1:]


def linked(page: str, name: str, session: str = r"\w+") -> dict[str, Any]:
    """Return the result that a page links to under a name or from its file name."""
    [path] = set(re.findall(rf"\.\./\.\./(qualification/results/bench/[\w.-]*-{name}-{session}\.json)", page))
    return json.loads((ROOT / path).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def by_load(result: Mapping[str, Any]) -> Rows:
    return {(row["input"], row["batch"]): row for row in result["rows"]}


SGLANG, PLAN = linked(ENGINES, "sglang-mtp", NOW), linked(ENGINES, "ours-mtp-fp8", NOW)
THEIRS, OURS = by_load(SGLANG), by_load(PLAN)
THEIRS_BEFORE, BF16 = by_load(linked(ENGINES, "sglang-mtp", BEFORE)), by_load(linked(ENGINES, "ours-mtp", BEFORE))
RATE, STEP, FIRST = FIGURES
RATIOS = {at: OURS[at][RATE] / row[RATE] for at, row in THEIRS.items()}
PROSE = " ".join(ENGINES.split())
SPEED = " ".join((ROOT / "docs/results/speed.md").read_text(encoding="utf-8").split())


def ratios(name: str, above: Rows, below: Rows) -> dict[tuple[int, int], float]:
    return {at: above[at][name] / row[name] for at, row in below.items()}


def shown(at: tuple[int, int]) -> list[str]:
    """Return the cells of a row of the table of both engines."""
    cells = [f"{at[0]:,}", f"{at[1]}" + (r" \*" if at == STOPPED else "")]
    for name, form in FIGURES.items():
        ratio = f"{OURS[at][name] / THEIRS[at][name]:.2f}"
        bold = f"**{ratio}**" if name == RATE else ratio
        cells += [format(THEIRS[at][name], form), format(OURS[at][name], form), bold]
    return cells


def test_the_rows_of_both_engines_are_those_of_their_results() -> None:
    assert OURS.keys() == THEIRS.keys()
    found = table(ENGINES, "| tokens in | requests | tok/s, SGLang |")
    assert found == [shown(at) for at in sorted(OURS)]


def test_the_rows_of_both_inputs_are_those_of_both_sessions() -> None:
    expected = []
    for at in sorted(OURS):
        pairs = [(BF16[at][STEP], OURS[at][STEP])]
        pairs += [(THEIRS_BEFORE[at][STEP], THEIRS[at][STEP])] if at in THEIRS_BEFORE else []
        cells = [[f"{old:.2f}", f"{new:.2f}", f"{new / old:.2f}"] for old, new in pairs]
        cells[0][2] = f"**{cells[0][2]}**"
        expected.append(
            [f"{at[0]:,}", f"{at[1]}", *cells[0], *(cells[1:] or [["cut", f"{THEIRS[at][STEP]:.2f}", ""]])[0]]
        )
    assert table(ENGINES, "| tokens in | requests | ours, BF16 inputs |") == expected


def test_the_page_says_in_how_many_rows_the_goal_is_reached() -> None:
    assert sorted(at for at, ratio in RATIOS.items() if ratio >= 1) == FASTER
    behind, most = len(RATIOS) - len(FASTER), max(RATIOS.values())
    lost = {at: 1 / ratio for at, ratio in RATIOS.items() if ratio < 1}
    stopped = lost.pop(STOPPED)
    goal = f"in {len(FASTER)} of {len(RATIOS)} rows, by up to {most:.2f} times"
    assert goal in PROSE
    assert (
        f"SGLang is faster in {behind}, by up to {max(lost.values()):.2f} times, and by {stopped:.2f} in a row" in PROSE
    )
    assert goal in SPEED
    assert OURS[STOPPED]["ttft_p99"] > 6000
    assert f"TTFT p99 was {OURS[STOPPED]['ttft_p99']:,.0f} ms, {BF16[STOPPED]['ttft_p99']:.0f} in the session" in PROSE
    longer = [ratio for ratio in ratios(STEP, OURS, THEIRS).values() if ratio > 1]
    assert f"time per token is longer in {len(longer)} of {len(RATIOS)} rows, by up to {max(longer):.2f} times" in PROSE


def test_the_page_says_what_another_session_of_sglang_makes_of_the_goal() -> None:
    other = ratios(RATE, OURS, THEIRS_BEFORE)
    lost = [at for at in FASTER if other[at] < 1]
    assert lost == [(1024, 16), (16000, 1)]
    assert f"at 16 requests would be {other[1024, 16]:.2f}, and 16,000 at one {other[16000, 1]:.2f}" in PROSE
    apart = sorted(abs(ratio - 1) for ratio in ratios(STEP, THEIRS, THEIRS_BEFORE).values())
    near = [one for one in apart if one < 0.015]
    far = [one for one in apart if one >= 0.015]
    told = f"within {max(near):.1%} in {len(near)} of {len(apart)} rows, {far[0]:.1%} and {far[1]:.1%} off"
    assert told in PROSE.replace(" %", "%").replace("2.6 and", "2.6% and")
    assert len(far) == 2
    worst = max(abs(ratio - 1) for ratio in ratios(RATE, THEIRS, THEIRS_BEFORE).values())
    assert f"tokens a second were up to {worst:.0%} off" in PROSE.replace(" %", "%")
    lost_before = [ratio for ratio in ratios(RATE, BF16, THEIRS_BEFORE).values() if ratio < 1]
    assert f"SGLang had more tokens a second in {len(lost_before)} of {len(THEIRS_BEFORE)} rows" in PROSE


def test_the_page_says_what_fp8_inputs_change() -> None:
    found = ratios(STEP, OURS, BF16)
    assert {f"{ratio:.2f}" for (_, batch), ratio in found.items() if batch == 1} == {"1.02"}
    many = {at: ratio for at, ratio in found.items() if at[1] > 1}
    longer = {at: many.pop(at) for at in list(many) if many[at] > 1}
    assert [f"{ratio:.2f}" for ratio in longer.values()] == ["1.02"]
    assert list(longer) == [(16000, 16)]
    least, most = (f"{(1 - one) * 100:.0f}" for one in (max(many.values()), min(many.values())))
    assert f"From four requests on it is {least} to {most} % shorter, but 2 % longer in one row" in PROSE


def test_the_ranges_of_the_differences_are_those_of_the_rows() -> None:
    first, step = ratios(FIRST, OURS, THEIRS), ratios(STEP, OURS, THEIRS)
    short = [ratio for (tokens, _), ratio in first.items() if tokens < 16000]
    long = [f"{first[16000, batch]:.2f}" for batch in (1, 4, 16, 64)]
    single = [ratio for (_, batch), ratio in step.items() if batch == 1]
    many = [ratio for (_, batch), ratio in step.items() if batch > 1]
    assert f"ours comes after {min(short):.2f} to {max(short):.2f} of SGLang's time" in ENGINES
    assert f"ours comes after {', '.join(long[:3])} and {long[3]} times SGLang's time" in ENGINES
    assert f"| {min(single):.2f} to {max(single):.2f} times SGLang's |" in ENGINES
    assert f"ours takes {min(many):.2f} to {max(many):.2f} times as long" in ENGINES


def test_the_page_about_numerics_has_the_limits_of_gpus() -> None:
    page = " ".join((ROOT / "docs/results/numerics.md").read_text(encoding="utf-8").split())
    middle, clear, long, long_clear = (
        f"{2 * FLOORS['gpu'][f'{prompt} {name}']:.3f}" for prompt in ("middle", "long") for name in ("median", "clear")
    )
    assert (
        f"limits of GPUs are {middle} for the median and {clear} for *clear* ({long} and {long_clear} for 2,552" in page
    )


STEPS, DECODED, PAIRED, LAYERS = 20, 18, 19, 44
"""Steps of a profile; in SGLang's, those that decode, and those with the kernel of its experts; layers with the draft."""
TOGETHER = {
    "experts: GEMMs, routing, sums": ("experts",),
    "FP8 GEMMs, quantization": ("FP8 GEMM", "quantize"),
    "other GEMMs": ("other GEMM",),
    "hyper-connections": ("hyper-connections",),
    "attention, indexer, compressor": ("attention", "indexer", "compressor"),
    "all others": ("other", "torch and Triton, other", "copy", "sampling", "norm"),
}


def families(result: Mapping[str, Any], batch: int) -> dict[str, Mapping[str, Any]]:
    return {one["name"]: one for one in result["kernels"][str(batch)]}


def longest(family: Mapping[str, Any], kernel: str) -> tuple[float, int]:
    """Return the time in ms and the calls of a family's longest kernel."""
    found = re.match(rf"(\d+)% (\d+) x .*{kernel}", family["longest"])
    assert found, family["longest"]
    return family["ms"] * int(found[1]) / 100, int(found[2])


def test_the_kernels_of_a_step_are_those_of_the_results() -> None:
    ours, theirs = families(PLAN, 16), families(SGLANG, 16)
    gemms, calls = longest(theirs["other GEMM"], "13device_kernelINS_4gemm")
    assert calls == 2 * PAIRED * LAYERS
    expected = []
    for name, parts in TOGETHER.items():
        most = sum(theirs[part]["ms"] for part in parts if part in theirs)
        most -= gemms if name == "other GEMMs" else 0
        most = most / DECODED + (gemms / PAIRED if parts == ("experts",) else 0)
        expected.append([name, f"{sum(ours[part]['ms'] for part in parts if part in ours) / STEPS:.2f}", f"{most:.2f}"])
    assert table(ENGINES, "| kernels at 16 requests |") == expected
    told = {"all-reduce", "idle", "span"} | {part for parts in TOGETHER.values() for part in parts}
    assert ours.keys() | theirs.keys() == told
    assert f"at most {gemms / PAIRED / LAYERS * 1000:.0f} with SGLang" in ENGINES
    assert f"and at most {gemms / PAIRED:.1f} ms |" in ENGINES


def test_the_step_and_what_explains_it_are_those_of_the_results() -> None:
    at = (256, 16)
    theirs, ours = THEIRS[at][STEP] * SGLANG["tokens_a_step"], k_by_load.step(OURS[at], 1).ms
    assert f"{theirs:.1f} ms with SGLang, {ours:.1f} ms with ours" in ENGINES
    cells = table(ENGINES, "| kernels at 16 requests |")[0]
    explained = float(cells[1]) - float(cells[2])
    assert f"explain at least {explained:.1f} of the {ours - theirs:.1f} ms" in ENGINES
    routing = {
        batch: sum(
            longest(families(PLAN, batch)[name], kernel)[0] / STEPS
            for name, kernel in (("indexer", "gatherTopK"), ("torch and Triton, other", "bitonicSort"))
        )
        for batch in (1, 16)
    }
    single = k_by_load.step(OURS[256, 1], 1).ms
    assert f"ours takes {routing[16]:.1f} ms for `torch.topk`" in ENGINES
    assert f"of a step of one request {routing[1]:.1f} of {single:.1f} ms" in ENGINES
    balanced, calls = longest(families(SGLANG, 1)["other"], "_simulate_balanced_routing_kernel")
    assert calls == STEPS * (LAYERS - 3)
    assert f"one small kernel for it: {balanced / STEPS:.2f} ms with one request" in ENGINES


def test_the_rows_of_dspark_are_those_of_its_result() -> None:
    result = linked(ENGINES, "sglang-dspark")
    rows = by_load(result)
    found = table(ENGINES, "| tokens in | requests | tok/s | TPOT")
    figures = [[format(rows[at][name], form) for name, form in FIGURES.items()] for at in sorted(rows)]
    assert found == [[f"{at[0]:,}", f"{at[1]}", *cells] for at, cells in zip(sorted(rows), figures, strict=True)]
    assert f"{result['tokens_a_step']} tokens a step, as SGLang counted them" in PROSE
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
