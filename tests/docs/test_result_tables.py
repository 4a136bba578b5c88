"""Tables of measured figures in docs/how-to that are written by hand: each figure is the one of its result file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
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
"""The row in which all streams of ours stalled."""
STALLED = ((256, 4), (256, 64), (1024, 64))
"""Those of ours with DSpark."""
NEWEST, NOW, BEFORE = "20261130T230118Z", "20261130T124231Z", "20261130T094227Z"
"""The sessions with measured kernels, with FP8 and with BF16 inputs of our experts."""

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
NEWEST_SGLANG, TABLES = linked(ENGINES, "sglang-mtp", NEWEST), linked(ENGINES, "ours-mtp", NEWEST)
THEIRS_NEWEST, MEASURED = by_load(NEWEST_SGLANG), by_load(TABLES)
SGLANG_DSPARK, OURS_DSPARK = linked(ENGINES, "sglang-dspark", BEFORE), linked(ENGINES, "ours-dspark", NEWEST)
THEIR_DRAFTS, OUR_DRAFTS = by_load(SGLANG_DSPARK), by_load(OURS_DSPARK)
RATE, STEP, FIRST = FIGURES
RATIOS = {at: OURS[at][RATE] / row[RATE] for at, row in THEIRS.items()}
PROSE = " ".join(ENGINES.split())
CHANGES = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
SPEED = " ".join((ROOT / "docs/results/speed.md").read_text(encoding="utf-8").split())


def ratios(
    name: str, above: Rows, below: Rows, where: Collection[tuple[int, int]] | None = None
) -> dict[tuple[int, int], float]:
    return {at: above[at][name] / row[name] for at, row in below.items() if where is None or at in where}


def shown(at: tuple[int, int], theirs: Rows, ours: Rows, marked: Collection[tuple[int, int]] = ()) -> list[str]:
    """Return the cells of a row of a table of both engines."""
    cells = [f"{at[0]:,}", f"{at[1]}" + (r" \*" if at in marked else "")]
    for name, form in FIGURES.items():
        one, two = theirs.get(at, {}).get(name), ours[at][name]
        ratio = f"{two / one:.2f}" if one else ""
        bold = f"**{ratio}**" if ratio and name == RATE else ratio
        cells += [format(one, form) if one else "not measured", format(two, form), bold]
    return cells


def test_the_rows_of_both_engines_are_those_of_their_results() -> None:
    assert OURS.keys() == THEIRS.keys()
    found = table(ENGINES, "| tokens in | requests | tok/s, SGLang | ours, no tables |")
    assert found == [shown(at, THEIRS, OURS, [STOPPED]) for at in sorted(OURS)]


def test_the_rows_with_measured_kernels_are_those_of_their_results() -> None:
    found = table(ENGINES, "| tokens in | requests | tok/s, SGLang | ours, with tables |")
    assert found == [shown(at, THEIRS_NEWEST, MEASURED) for at in sorted(MEASURED)]
    assert [uses_tables(result) for result in (TABLES, OURS_DSPARK, PLAN)] == [True, True, False]


def uses_tables(result: Mapping[str, Any]) -> bool:
    return bool(result["replica"]["env"].get("VLLM_TUNED_CONFIG_FOLDER"))


def test_the_page_says_what_measured_kernels_reach() -> None:
    one, two = (f"{ratio:.2f}" for _, ratio in sorted(ratios(RATE, MEASURED, THEIRS_NEWEST, MEASURED).items()))
    assert sorted(MEASURED) == [(256, 1), (256, 4)]
    left = f"{len(THEIRS_NEWEST) - len(MEASURED)} of {len(THEIRS_NEWEST)} rows are unmeasured"
    assert f"| 2 rows, {one} and {two} times: 256 tokens in at 1 and 4 requests | none | {left} |" in ENGINES
    for page in (SPEED, CHANGES):
        assert f"ours {'got' if page is SPEED else 'has'} {one} and {two} times" in page
    assert f"our two rows are {one} and {two} still" in PROSE
    for rows in (THEIRS, THEIRS_BEFORE):
        assert all(ratio > float(one) for ratio in ratios(RATE, MEASURED, rows, MEASURED).values())
    gained = [f"{ratio:.2f}" for _, ratio in sorted(ratios(RATE, MEASURED, OURS, MEASURED).items())]
    assert f"that is {gained[0]} and {gained[1]} times the tokens a second" in PROSE
    steps = [k_by_load.step(rows[256, batch], 1).ms for batch in (1, 4) for rows in (MEASURED, OURS)]
    assert "a step takes {:.2f} ms in place of {:.2f}, and {:.2f} in place of {:.2f}".format(*steps) in PROSE
    assert {f"{k_by_load.step(row, 1).tokens:.2f}" for row in MEASURED.values()} == {"1.90"}
    assert f"SGLang counted {NEWEST_SGLANG['tokens_a_step']} over all rows, ours 1.90 in both" in PROSE
    for result, words in (
        (TABLES, "Ours was ready after {:.0f} s, having"),
        (NEWEST_SGLANG, "SGLang was ready after {:.0f} s, with its small"),
    ):
        assert words.format(result["ready_after"]) in PROSE


def test_the_page_says_how_well_sglang_repeats() -> None:
    expected = []
    for name, above, below in (
        ("newest session / 12:42", THEIRS_NEWEST, THEIRS),
        ("newest session / 09:40", THEIRS_NEWEST, THEIRS_BEFORE),
        ("12:42 / 09:40", THEIRS, THEIRS_BEFORE),
    ):
        found = [ratios(figure, above, below, below.keys() & above.keys()).values() for figure in FIGURES]
        spans = [f"{min(one):.2f} to {max(one):.2f}" for one in found]
        expected.append([name, f"{len(found[0])}", *spans])
    assert table(ENGINES, "| SGLang | rows | tok/s | TPOT p50 | TTFT p50 |") == expected
    apart = {
        figure: max(
            abs(ratio - 1)
            for above, below in ((THEIRS_NEWEST, THEIRS), (THEIRS_NEWEST, THEIRS_BEFORE), (THEIRS, THEIRS_BEFORE))
            for ratio in ratios(figure, above, below, below.keys() & above.keys()).values()
        )
        for figure in (STEP, RATE)
    }
    assert (
        f"repeats within {apart[STEP] * 100:.0f} %, and its tokens a second within {apart[RATE] * 100:.0f} %" in PROSE
    )
    assert f"sessions differ with MTP, up to {apart[RATE] * 100:.0f} %" in PROSE


def test_the_rows_of_both_inputs_are_those_of_both_sessions() -> None:
    expected = []
    for at in sorted(OURS):
        pairs = [(BF16[at][STEP], OURS[at][STEP])]
        pairs += [(THEIRS_BEFORE[at][STEP], THEIRS[at][STEP])] if at in THEIRS_BEFORE else []
        cells = [[f"{old:.2f}", f"{new:.2f}", f"{new / old:.2f}"] for old, new in pairs]
        cells[0][2] = f"**{cells[0][2]}**"
        expected.append(
            [f"{at[0]:,}", f"{at[1]}", *cells[0], *(cells[1:] or [["not measured", f"{THEIRS[at][STEP]:.2f}", ""]])[0]]
        )
    assert table(ENGINES, "| tokens in | requests | ours, BF16 inputs |") == expected


def test_the_page_says_in_how_many_rows_the_goal_is_reached() -> None:
    assert sorted(at for at, ratio in RATIOS.items() if ratio >= 1) == FASTER
    behind, most = len(RATIOS) - len(FASTER), max(RATIOS.values())
    lost = {at: 1 / ratio for at, ratio in RATIOS.items() if ratio < 1}
    stopped = lost.pop(STOPPED)
    goal = f"in {len(FASTER)} of {len(RATIOS)} rows, by up to {most:.2f} times"
    assert PROSE.count(goal) == 1
    assert sorted(at for at, ratio in RATIOS.items() if ratio < 1) == [
        *((256, 64), (1024, 64)),
        *((16000, batch) for batch in (4, 16, 64)),
    ]
    missed = "64 requests everywhere, and 16,000 tokens in at 4 and 16"
    reached = f"{len(FASTER)} of {len(RATIOS)} rows, by up to {most:.2f} times"
    assert f"| {reached} | {behind} rows: {missed} | one of the {behind} stalled |" in ENGINES
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
    newest = ratios(RATE, OURS, THEIRS_NEWEST)
    lost = [at for at in FASTER if newest[at] < 1]
    assert lost == [(256, 16), (1024, 16), (16000, 1)]
    one, two, three = (f"{newest[at]:.2f}" for at in lost)
    assert f"256 tokens in at 16 requests would be {one}, 1,024 at 16 {two}, and 16,000 at one {three}" in PROSE
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
    assert f"ours takes {min(short):.2f} to {max(short):.2f} times as long as SGLang's" in ENGINES
    assert f"ours takes {', '.join(long[:3])} and {long[3]} times as long as SGLang's" in ENGINES
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


STEPS, LAYERS = 20, 44
"""Steps of a profile; layers with the draft."""
TOGETHER = {
    "experts: GEMMs, routing, sums": ("experts",),
    "FP8 GEMMs, quantization": ("FP8 GEMM", "quantize"),
    "other GEMMs": ("other GEMM",),
    "hyper-connections": ("hyper-connections",),
    "attention, indexer, compressor": ("attention", "indexer", "compressor"),
    "all others": ("other", "torch and Triton, other", "copy", "sampling", "norm"),
}
REST = {"idle": ("idle",), "the whole step": ("span",)}


def families(result: Mapping[str, Any], batch: int | str) -> dict[str, Mapping[str, Any]]:
    return {one["name"]: one for one in result["kernels"][str(batch)]}


def longest(family: Mapping[str, Any], kernel: str) -> tuple[float, int]:
    """Return the time in ms and the calls of a family's longest kernel."""
    found = re.match(rf"(\d+)% (\d+) x .*{kernel}", family["longest"])
    assert found, family["longest"]
    return family["ms"] * int(found[1]) / 100, int(found[2])


def test_the_kernels_of_a_step_are_those_of_the_results() -> None:
    ours, theirs = families(PLAN, 16), families(NEWEST_SGLANG, 16)
    gemms, calls = longest(theirs["experts"], "13device_kernelINS_4gemm")
    assert calls == 2 * STEPS * LAYERS
    shown_here = TOGETHER | {"all-reduce, waiting included": ("all-reduce",), "idle": ("idle",)}
    expected = [
        [name, *(f"{summed(found, parts) / STEPS:.2f}" for found in (ours, theirs))]
        for name, parts in shown_here.items()
    ]
    assert table(ENGINES, "| kernels at 16 requests |") == expected
    known = {"span"} | {part for parts in shown_here.values() for part in parts}
    assert ours.keys() | theirs.keys() == known
    assert f"and {gemms / STEPS / LAYERS * 1000:.0f} with SGLang" in ENGINES
    assert f"times {LAYERS} layers 14.2 and {gemms / STEPS:.1f} ms |" in ENGINES


def summed(found: Mapping[str, Mapping[str, Any]], parts: Collection[str]) -> float:
    return sum(float(found[part]["ms"]) for part in parts if part in found)


def test_the_kernels_of_a_prompt_are_those_of_the_result() -> None:
    found = families(NEWEST_SGLANG, "prompt 16000")
    assert longest(found["attention"], "prefill")[1] == 2 * LAYERS  # two steps
    span = found["span"]["ms"]
    expected = []
    for name, parts in (TOGETHER | {"all-reduce": ("all-reduce",)} | REST).items():
        ms = summed(found, parts)
        expected.append([name, f"{ms / 2:.1f}", f"{ms / span * 100:.0f} %"])
    assert table(ENGINES, "| kernels of a prompt's step, SGLang |") == expected
    assert "Without idle time, which is partly" in PROSE
    assert f"a step takes {(span - found['idle']['ms']) / 2:.0f} ms" in PROSE


def test_the_step_and_what_explains_it_are_those_of_the_results() -> None:
    at = (256, 16)
    theirs, ours = THEIRS[at][STEP] * SGLANG["tokens_a_step"], k_by_load.step(OURS[at], 1).ms
    assert f"{theirs:.1f} ms with SGLang, {ours:.1f} ms with ours" in ENGINES
    cells = table(ENGINES, "| kernels at 16 requests |")[0]
    explained = float(cells[1]) - float(cells[2])
    assert f"explain {explained:.1f} of the {ours - theirs:.1f} ms" in ENGINES
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


def test_the_rows_of_dspark_are_those_of_their_results() -> None:
    found = table(ENGINES, "| tokens in | requests | tok/s, SGLang, 09:40 | ours, with tables |")
    assert found == [shown(at, THEIR_DRAFTS, OUR_DRAFTS, STALLED) for at in sorted(OUR_DRAFTS)]
    assert {at for at, row in OUR_DRAFTS.items() if row["ttft_p99"] > 3 * row["ttft_p50"] + 1000} == set(STALLED)
    waits = [f"{OUR_DRAFTS[at]['ttft_p99']:,.0f}" for at in STALLED]
    assert f"TTFT p99 was {waits[0]}, {waits[1]} and {waits[2]} ms" in PROSE
    assert f"SGLang's are {SGLANG_DSPARK['tokens_a_step']}, as it counted them" in PROSE
    tokens = [k_by_load.step(row, 5).tokens for row in OUR_DRAFTS.values()]
    assert f"Our tokens a step are {min(tokens):.2f} to {max(tokens):.2f} in each row" in PROSE
    assert f"Ours was ready after {OURS_DSPARK['ready_after']:.0f} s. SGLang was ready after" in PROSE
    slowest = max(row["ttft_p99"] for (length, _), row in THEIR_DRAFTS.items() if length == 256)
    assert f"TTFT p99 was {slowest / 1000:.1f} s at most" in ENGINES


def test_the_page_says_where_dspark_reaches_the_goal() -> None:
    both = THEIR_DRAFTS.keys() & OUR_DRAFTS.keys()
    rate, step, first = (ratios(name, OUR_DRAFTS, THEIR_DRAFTS, both) for name in FIGURES)
    stalled = [at for at in STALLED if at in both]
    assert len(stalled) == 2
    assert all(step[at] < 1 and first[at] < 1 for at in stalled)
    fair = {at: ratio for at, ratio in rate.items() if at not in STALLED}
    more = {at: ratio for at, ratio in fair.items() if ratio >= 1}
    assert fair.keys() - more.keys() == {(16000, 16)}
    assert all((step[at] < 1) == (at in more) for at in fair)
    assert first[16000, 16] > 1
    span, less = f"{min(more.values()):.2f} to {max(more.values()):.2f} times", f"{fair[16000, 16]:.2f}"
    assert f"in {len(more)} of {len(fair)} rows without a stall, by {span}" in PROSE
    assert f"| {len(more)} rows, {span}, against another session of SGLang |" in ENGINES
    assert (
        f"| 16,000 tokens in at 16 requests: {less} | 2 rows in which ours stalled, {12 - len(both)} unmeasured |"
        in ENGINES
    )
    assert f"It has {less} times as many" in PROSE
    assert f"ours got {span} as many in {len(more)} of {len(fair)} rows, and {less} times with" in SPEED
    assert f"with DSpark {span} in {len(more)} of {len(fair)} rows, {less} in one" in CHANGES
    differ = max(ratios(RATE, THEIRS_NEWEST, THEIRS).values())
    undone = [at for at, ratio in more.items() if ratio < differ]
    assert sorted(undone) == [(16000, 1), (16000, 4)]
    row = OUR_DRAFTS[16000, 1]
    had, mean = k_by_load.step(row, 5).tokens, SGLANG_DSPARK["tokens_a_step"]
    seconds = (row["ttft_p50"] + 255 * row["tpot_p50"] * had / mean) / 1000
    computed = 256 / seconds / THEIR_DRAFTS[16000, 1][RATE]
    assert f"{had:.2f} tokens a step by chance: with {mean} the ratio would be {computed:.2f}" in PROSE


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
