"""Tables of measured figures that are written by hand: each figure is the one of its result file."""

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
SPEED = (ROOT / "docs/results/speed.md").read_text(encoding="utf-8")
DRAFTS = (ROOT / "docs/how-to/k-by-load.md").read_text(encoding="utf-8")

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


def families(result: Mapping[str, Any], batch: int | str) -> dict[str, Mapping[str, Any]]:
    return {one["name"]: one for one in result["kernels"][str(batch)]}


def longest(family: Mapping[str, Any], kernel: str) -> tuple[float, int]:
    """Return the time in ms and the calls of a family's longest kernel."""
    found = re.match(rf"(\d+)% (\d+) x .*{kernel}", family["longest"])
    assert found, family["longest"]
    return family["ms"] * int(found[1]) / 100, int(found[2])


NEWEST, NOW, BEFORE = "20261130T230118Z", "20261130T124231Z", "20261130T094227Z"
"""The sessions with measured kernels, with FP8 and with BF16 inputs of our experts."""
TABLES, FP8, BF16 = (
    by_load(linked(SPEED, name, session))
    for name, session in (("ours-mtp", NEWEST), ("ours-mtp-fp8", NOW), ("ours-mtp", BEFORE))
)


def ratios(name: str, above: Rows, below: Rows) -> dict[tuple[int, int], float]:
    return {at: above[at][name] / row[name] for at, row in below.items() if at in above}


def test_what_fp8_inputs_change_is_what_the_results_of_both_sessions_say() -> None:
    found = ratios("tpot_p50", FP8, BF16)
    shown = table(SPEED, "| time per token with FP8 inputs / with BF16 ones |")
    for row, tokens in zip(shown, (256, 1024, 16000), strict=False):
        assert row == [f"{tokens:,} tokens in", *(f"{found[tokens, batch]:.2f}" for batch in (1, 4, 16, 64))]
    assert {f"{ratio:.2f}" for (_, batch), ratio in found.items() if batch == 1} == {"1.02"}
    many = sorted(ratio for (_, batch), ratio in found.items() if batch > 1)
    assert len(many) == 9
    assert f"{many.pop():.2f}" == "1.02"
    least, most = f"{(1 - many[-1]) * 100:.0f}", f"{(1 - many[0]) * 100:.0f}"
    said = "one request took 2 % longer with FP8 inputs; from four requests on a token took {} to {} % less time"
    assert said.format(least, most) in " ".join(SPEED.split())
    experts = [
        [families(linked(SPEED, name, session), batch)["experts"]["ms"] / 20 for batch in (1, 16)]
        for name, session in (("ours-mtp-fp8", NOW), ("ours-mtp", BEFORE))
    ]
    (one, many_fp8), (before, many_bf16) = experts
    assert shown[3][1:] == [f"{one:.2f} / {before:.2f}", "", f"{many_fp8:.2f} / {many_bf16:.2f}", ""]
    theirs = [by_load(linked(SPEED, "sglang-mtp", session)) for session in (NOW, BEFORE)]
    apart = sorted(abs(ratio - 1) * 100 for ratio in ratios("tpot_p50", *theirs).values())
    same = f"repeated within {apart[-3]:.1f} % in {len(apart) - 2} of {len(apart)} rows, {apart[-2]:.1f} and {apart[-1]:.1f} % off"
    assert same in " ".join(SPEED.split())


def test_what_measured_kernels_change_on_two_gpus_is_what_the_results_say() -> None:
    gained = [f"{ratio:.2f}" for _, ratio in sorted(ratios("output_tokens_per_second", TABLES, FP8).items())]
    steps = [k_by_load.step(rows[256, batch], 1).ms for batch in (1, 4) for rows in (TABLES, FP8)]
    text = " ".join(SPEED.split())
    assert f"got {gained[0]} and {gained[1]} times the tokens a second at 1 and 4 requests" in text
    assert "a step takes {:.2f} ms in place of {:.2f}, and {:.2f} in place of {:.2f}".format(*steps) in text


def test_the_page_about_numerics_has_the_limits_of_gpus() -> None:
    page = " ".join((ROOT / "docs/results/numerics.md").read_text(encoding="utf-8").split())
    middle, clear, long, long_clear = (
        f"{2 * FLOORS['gpu'][f'{prompt} {name}']:.3f}" for prompt in ("middle", "long") for name in ("median", "clear")
    )
    assert (
        f"limits of GPUs are {middle} for the median and {clear} for *clear* ({long} and {long_clear} for 2,552" in page
    )


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
