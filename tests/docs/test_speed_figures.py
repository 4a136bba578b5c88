"""Served figures of docs/results/speed.md of 2026-11-30, and what other pages quote of them: those of the result files."""

from __future__ import annotations

import json
import re
import statistics
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qualification.gpu import beside
from tests.docs.test_result_tables import by_load, families, linked, longest, table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/results/speed.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())
SESSION = "20261130T190322Z"
SERVED = {name: linked(PAGE, name, SESSION) for name in ("humming-choice", "int4-tables", "full-graphs", "fp8-shared")}
"""What was measured of batch_one.toml, the plan without tables first."""
ROWS = {
    name: [by_load(result)[256, batch] for batch in (1, 4, 16) if (256, batch) in by_load(result)]
    for name, result in SERVED.items()
}
HALF, WHOLE = (linked(PAGE, name, SESSION) for name in ("half-step", "whole-step"))
STEPS, LAYERS = 20, 44


def of(name: str, figure: str) -> list[float]:
    return [row[figure] for row in ROWS[name]]


def listed(values: list[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)


def ratios(name: str) -> list[float]:
    """Return tokens a second as multiples of those of the plan without tables."""
    rate = "output_tokens_per_second"
    return [value / first for value, first in zip(of(name, rate), of("humming-choice", rate), strict=False)]


GAINS = listed(ratios("int4-tables"), ".2f")
IN_WORDS = " and ".join(GAINS.rsplit(", ", 1))


STREAMS = {
    name: linked(PAGE, name, "20261130T230118Z")
    for name in ("batch-one-plan", "one-stream", "gemm-streams", "batch-one-plan-again")
}
"""What a later session measured of batch_one.toml, with tables; the plan first and last."""
HOST = "of a host with 4 x NVIDIA H200 (driver {driver}, {cores} cores)"
LATER = {name: [by_load(result)[256, batch] for batch in (1, 4, 16)] for name, result in STREAMS.items()}


def later(name: str, figure: str) -> list[float]:
    return [row[figure] for row in LATER[name]]


def later_ratios(name: str) -> list[float]:
    """Return tokens a second as multiples of those of the plan's first start."""
    rate = "output_tokens_per_second"
    return [value / first for value, first in zip(later(name, rate), later("batch-one-plan", rate), strict=True)]


def test_the_rows_of_streams_are_those_of_their_results() -> None:
    expected = []
    for name in STREAMS:
        ratio = "" if name == "batch-one-plan" else listed(later_ratios(name), ".2f")
        rate, tpot = listed(later(name, "output_tokens_per_second"), ",.1f"), listed(later(name, "tpot_p50"), ".2f")
        expected.append([rate, ratio, tpot, listed(later(name, "ttft_p50"), ".0f"), name])
    text = PAGE.partition("Streams, with measured kernels")[2]
    rows = table(text, "| | tok/s at batch 1, 4, 16 | / the first row |")
    assert [[*row[1:5], *re.findall(r"\[([\w-]+)\]\(\.\.", row[5])] for row in rows] == expected


def test_the_text_about_streams_has_the_figures_of_the_results() -> None:
    again = later_ratios("batch-one-plan-again")
    assert f"the plan itself got {min(again):.2f} to {max(again):.2f} times its tokens a second" in PROSE
    plan, one, gemm = (later(name, "tpot_p50")[0] for name in list(STREAMS)[:3])
    slower = f"{one - plan:.2f} ms a token slower than the plan and {one - gemm:.2f} slower than `gemm-streams`"
    assert f"`one-stream` is {slower}" in PROSE
    first = [later(name, "ttft_p50")[0] for name in list(STREAMS)[:3]]
    assert f"The TTFT of all three is {min(first):.0f} to {max(first):.0f} ms" in PROSE
    most = max(later("batch-one-plan", "ttft_p50"))
    assert f"up to {most:.0f} ms at 16 requests in place of {of('int4-tables', 'ttft_p50')[2]:.0f} above" in PROSE
    level = [ratio for ratio in later_ratios("gemm-streams")[:2] if abs(ratio - 1) < 0.015]
    assert len(level) == 2
    rates = [
        later(name, "output_tokens_per_second")[2]
        for name in ("batch-one-plan", "gemm-streams", "batch-one-plan-again")
    ]
    assert rates == sorted(rates)


def test_the_rows_of_streams_were_measured_as_the_page_says() -> None:
    for name, result in STREAMS.items():
        replica = result["replica"]
        assert "VLLM_TUNED_CONFIG_FOLDER" in replica["env"]
        assert replica["env"]["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"] == "uniform_spread"
        assert len(replica["machine"]["gpus"]) == 1
        assert PROSE.count(HOST.format(**replica["machine"])) == 2
        assert replica["settings"]["max-num-batched-tokens"]["value"] == 2304
        assert (replica["env"]["CUDA_VISIBLE_DEVICES"] == "1") == (name == "batch-one-plan")
        assert all(row["requests"] == 4 * row["batch"] for row in LATER[name])
    assert STREAMS["one-stream"]["variant"]["env"] == {"VLLM_DISABLE_SHARED_EXPERTS_STREAM": "1"}
    assert STREAMS["gemm-streams"]["variant"]["env"] == {"VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD": "8192"}


def test_the_rows_of_what_could_be_faster_are_those_of_their_results() -> None:
    expected = []
    for name in SERVED:
        faster = "" if name == "humming-choice" else listed(ratios(name), ".2f")
        rate, tpot = listed(of(name, "output_tokens_per_second"), ",.1f"), listed(of(name, "tpot_p50"), ".2f")
        expected.append([rate, faster, tpot, listed(of(name, "ttft_p50"), ".0f")])
    found = table(PAGE, "| | tok/s at batch 1, 4, 16 | / the first row |")
    assert [[cell.strip("*") for cell in row[1:5]] for row in found] == expected
    assert [re.findall(r"\[([\w-]+)\]\(\.\.", row[5]) for row in found] == [[name] for name in SERVED]


def test_the_rows_were_measured_as_the_page_says() -> None:
    for name, result in SERVED.items():
        replica = result["replica"]
        assert replica["env"]["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"] == "uniform_spread"
        assert ("VLLM_TUNED_CONFIG_FOLDER" in replica["env"]) == (name == "int4-tables")
        assert replica["machine"]["cores"] == 16
        assert f"steps of {replica['settings']['max-num-batched-tokens']['value']:,} tokens. One session" in PROSE
        assert all(row["requests"] == 4 * row["batch"] for row in ROWS[name])
        assert ("failed" in result) == (name == "fp8-shared")


def test_the_kernels_of_a_step_are_those_of_both_traces() -> None:
    without, tables = (families(SERVED[name], 16) for name in ("humming-choice", "int4-tables"))
    both = [f"{one[part]['ms']:.1f}" for part in ("experts", "span") for one in (tables, without)]
    assert (
        f"the experts take {both[0]} in place of {both[1]} ms of 20 steps, which took {both[2]} in place of {both[3]} ms"
        in PROSE
    )
    left = [
        sum(one["ms"] for part, one in found.items() if part not in ("experts", "idle", "span"))
        for found in (without, tables)
    ]
    assert abs(left[0] - left[1]) < 1


def test_the_draw_and_the_look_up_are_those_of_the_trace() -> None:
    found = families(SERVED["humming-choice"], 16)
    draw = longest(found["torch and Triton, other"], "distribution_elementwise_grid_stride_kernel")
    look_up = longest(found["copy"], "_scatter_gather_elementwise_kernel")
    assert draw[1] == look_up[1] == STEPS * LAYERS
    assert f"The draw and the look-up take {(draw[0] + look_up[0]) / STEPS:.2f} ms of a step at 16 requests" in PROSE


def test_the_least_of_a_step_and_its_share_are_computed_from_the_results() -> None:
    [text] = re.findall(r"same of one GPU's share with and without(?:.*\n)+?\n(?:\|.*\n)+", PAGE)
    found = table(text, "| batch | least, ms, of W4A16 |")
    for row, batch in zip(found, (1, 4, 16), strict=True):
        least = minimum(batch)
        assert row[:2] == [str(batch), f"{least:.2f}"]
        for cells, name in ((row[2:4], "humming-choice"), (row[4:6], "int4-tables")):
            one = by_load(SERVED[name])[256, batch]
            tokens = 1 + one["acceptance"]
            step = one["tpot_p50"] * tokens
            assert cells[0] == f"{one['tpot_p50']:.2f} x {tokens:.2f} = {step:.1f}"
            assert cells[1].strip("*") == f"{100 * least / step:.0f} %"


def minimum(batch: int) -> float:
    """Return the least ms of a step, as the page's first table of it has them."""
    [row] = [row for row in table(PAGE, "| batch | experts read of 256 |") if row[0] == str(batch)]
    return float(row[4])


@pytest.mark.parametrize(
    "file",
    [
        "CHANGELOG.md",
        "docs/how-to/choose-a-model.md",
        "profiles/hardware/h200.toml",
        "qualification/results/plans.toml",
    ],
)
def test_other_files_have_what_measured_kernels_gain(file: str) -> None:
    text = " ".join((ROOT / file).read_text(encoding="utf-8").replace("\n# ", " ").split())
    assert f"{IN_WORDS} times the tokens a second" in text


def test_the_page_has_the_range_that_measured_kernels_gain() -> None:
    values = sorted(ratios("int4-tables"))
    assert f"W4A16 gets [{values[0]:.2f} to {values[-1]:.2f} times the tokens a second]" in PAGE


def test_what_fp8_shared_experts_take_is_of_their_result() -> None:
    first, second = (of(name, "tpot_p50")[0] for name in ("fp8-shared", "humming-choice"))
    assert first > second
    before, after = (
        row["tpot_p50"] * (1 + row["acceptance"])
        for row in (ROWS[name][0] for name in ("humming-choice", "fp8-shared"))
    )
    assert f"Shared experts in FP8: at batch 1 a step takes {after - before:.2f} ms longer" in PROSE
    assert f"TPOT is [{first:.2f} ms with it and {second:.2f} without]" in PAGE


def test_what_is_unmeasured_is_in_the_file_and_has_no_result() -> None:
    variants = tomllib.loads((ROOT / "qualification/gpu/batch_one.toml").read_text(encoding="utf-8"))["variant"]
    text = PAGE.partition("* Unmeasured: on two GPUs")[2].partition("\n\n")[0]
    told = set(re.findall(r"`([\w-]+)`", text))
    measured = {"plan", "no-tables", "full-graphs", "fp8-shared"} | {
        name.removeprefix("batch-one-") for name in (*STREAMS, *ALONE)
    }
    assert told == {one["name"] for one in variants} - measured


# The rest of batch_one.toml, with nothing else on the host

ALONE = {name: linked(PAGE, name, "20261201T022153Z") for name in ("batch-one-plan", "one-gemm-stream", "fp8-deepgemm")}
RATE, TPOT, TTFT = "output_tokens_per_second", "tpot_p50", "ttft_p50"


def alone(name: str, figure: str) -> list[float]:
    return [by_load(ALONE[name])[256, batch][figure] for batch in (1, 4, 16)]


def alone_ratios(name: str) -> list[float]:
    return [value / first for value, first in zip(alone(name, RATE), alone("batch-one-plan", RATE), strict=True)]


def test_the_rows_of_the_rest_are_those_of_their_results() -> None:
    expected = []
    for name in ALONE:
        ratio = "" if name == "batch-one-plan" else listed(alone_ratios(name), ".2f")
        cells = [listed(alone(name, RATE), ",.1f"), ratio, listed(alone(name, TPOT), ".2f")]
        expected.append([*cells, listed(alone(name, TTFT), ".0f"), name])
    text = PAGE.partition("The rest, with nothing else on the host")[2]
    rows = table(text, "| | tok/s at batch 1, 4, 16 | / the first row |")
    assert [[*row[1:5], *re.findall(r"\[([\w-]+)\]\(\.\.", row[5])] for row in rows] == expected


def test_the_text_about_the_rest_has_the_figures_of_the_results() -> None:
    one, four, sixteen = (f"{(1 - ratio) * 100:.0f} %" for ratio in alone_ratios("one-gemm-stream"))
    assert one == four
    assert f"`one-gemm-stream` loses {one} of the tokens a second at 1 and 4 requests and {sixteen} at 16" in PROSE
    assert max(abs(ratio - 1) for ratio in alone_ratios("fp8-deepgemm")) < 0.0101
    assert "`fp8-deepgemm` is level, within 1 %" in PROSE
    pairs = zip(alone("batch-one-plan", TPOT), of("int4-tables", TPOT), strict=True)
    assert max(abs(new / old - 1) for new, old in pairs) < 0.003
    first, second, third = of("int4-tables", TPOT)
    assert f"({first:.2f}, {second:.2f} and {third:.2f} ms a token in another session" in PROSE


def test_the_rest_was_measured_as_the_page_says() -> None:
    for result in ALONE.values():
        replica = result["replica"]
        assert replica["env"]["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"] == "uniform_spread"
        assert "VLLM_TUNED_CONFIG_FOLDER" in replica["env"]
        assert (len(replica["machine"]["gpus"]), replica["machine"]["cores"]) == (1, 16)
        assert all(row["requests"] == 4 * row["batch"] for row in result["rows"])
    assert ALONE["one-gemm-stream"]["variant"]["env"] == {"VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD": "0"}
    assert ALONE["fp8-deepgemm"]["variant"]["env"] == {"VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER": "0"}


# A million tokens


def test_the_measurement_of_a_million_tokens_is_of_its_result() -> None:
    result = linked(PAGE, "1m", "20261201T022153Z")
    [found] = result["returning"]
    read, *cached = found["turns"]
    assert [turn["gpu"] > 0 for turn in found["turns"]] == [False, True, True]
    expected = [
        [", ".join(f"{turn[figure]:.2f}" for turn in turns) for figure in ("seconds", "ms_a_token")]
        for turns in ([read], cached)
    ]
    assert [row[1:] for row in table(PAGE, f"| {found['tokens']:,} tokens | first token, s |")] == expected
    assert f"They were read at {round(found['tokens'] / read['seconds'], -2):,.0f} a second" in PROSE
    each = [turn["ms_a_token"] for turn in found["turns"]]
    [short] = result["rows"]
    start = short["tpot_p50"]
    said = f"{min(each) / start:.2f} to {max(each) / start:.2f} times the {start:.2f} ms behind {short['input']} tokens"
    assert f"A token took {min(each):.2f} to {max(each):.2f} ms after them, {said}" in PROSE
    left = [f"{found['tokens'] - turn['gpu']:.0f}" for turn in cached]
    assert f"the cache had all but the last {' and '.join(left)} tokens" in PROSE
    assert f"a prompt of 1M tokens; {read['seconds']:.0f} s here" in PROSE
    profile = " ".join((ROOT / "profiles/1m.toml").read_text(encoding="utf-8").split())
    assert f"{found['tokens']:,} were read in {read['seconds']:.0f} s" in profile


# 500,000 tokens again


def test_the_second_measurement_of_500_000_tokens_is_of_its_result() -> None:
    result = linked(PAGE, "returning-host-500k", "20261130T230118Z")
    assert HOST.format(**result["replica"]["machine"]) in PROSE
    size = result["replica"]["settings"]["kv-offloading-size"]["value"]
    assert f"`uniform_spread` routing, [{size:g} GiB of host memory]" in PROSE
    [found] = result["returning"]
    by_source: dict[str, list[Mapping[str, Any]]] = {"read": [], "host": [], "gpu": []}
    for turn in found["turns"]:
        by_source[next((source for source in ("gpu", "host") if turn[source]), "read")].append(turn)
    expected = [
        [", ".join(f"{turn[figure]:.2f}" for turn in turns) for figure in ("seconds", "ms_a_token")]
        for turns in by_source.values()
    ]
    assert [row[1:] for row in table(PAGE, "| history | first token, s |")] == expected
    rate = round(found["tokens"] / found["p50"]["read"], -2)
    assert f"{found['tokens']:,} tokens were read at {rate:,.0f} a second. A token" in PROSE
    each = [turn["ms_a_token"] for turn in found["turns"]]
    [short] = result["rows"]
    least, most, start = min(each), max(each), short["tpot_p50"]
    said = f"{least / start:.2f} to {most / start:.2f} times the {start:.2f} ms behind {short['input']} tokens"
    assert f"A token took {least:.1f} to {most:.1f} ms after them, {said} of the same start" in PROSE
    assert f"from the whole time, and {least:.1f} to {most:.1f} from the tokens" in PROSE
    cached = sorted(turn["seconds"] for turn in by_source["gpu"])
    assert f"and another {cached[0]:.2f} and {cached[1]:.2f} s behind {found['tokens']:,}" in PROSE
    assert f"64 tokens ({short['output']} behind {short['input']})" in PROSE


# A long prompt beside short ones


def span(values: list[float]) -> str:
    least, most = f"{min(values):.2f}", f"{max(values):.2f}"
    return least if least == most else f"{least} to {most}"


def test_the_rows_of_a_long_prompt_are_those_of_both_results() -> None:
    found = table(PAGE, "| | `--long-prefill-token-threshold 0`, vLLM's default |")
    whole, half = WHOLE["beside"], HALF["beside"]
    waits = half["short_beside"]
    expected = [
        [span(one["short_alone"]) for one in (whole, half)],
        [
            f"**{whole['short_beside'][0]:.2f} (one request)**",
            f"**{half['short_beside_p50']:.2f} median, {max(waits):.2f} at most ({len(waits)} requests)**",
        ],
        [f"{one['long_alone']:.2f}" for one in (whole, half)],
        [f"{one['long_beside']:.2f}" for one in (whole, half)],
    ]
    assert [row[1:] for row in found[:4]] == expected
    assert len(whole["short_beside"]) == 1
    assert half["short_beside_p50"] == statistics.median(waits)


def test_the_text_about_a_long_prompt_has_the_figures_of_both_results() -> None:
    whole, half = WHOLE["beside"], HALF["beside"]
    *waits, last = half["short_beside"]
    assert f"six of seven waited {min(waits):.2f} to {max(waits):.2f} s; the seventh came" in PROSE
    assert (
        f"was nearly read, and waited {last:.2f}. The long prompt takes {half['long_beside'] - half['long_alone']:.2f} s"
        in PROSE
    )
    assert whole["short_beside"][0] + 0.5 > whole["long_beside"]  # it began half a second later
    assert f"has {half['tokens']:,} tokens" in PROSE
    code = " ".join((ROOT / "entrypoint/resolve/long_prompts.py").read_text(encoding="utf-8").split())
    waited = f"{whole['short_beside'][0]:.2f} s beside a prompt of {half['tokens']:,} tokens on an H200"
    assert f"{waited}, {half['short_beside_p50']:.2f} s with the flag" in code
    changes = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
    told = f"after {half['short_beside_p50']:.2f} s in place of {whole['short_beside'][0]:.2f}"
    assert f"beside one of {half['tokens']:,} tokens a short one gets its first token {told}" in changes
    [cpu] = (ROOT / "qualification/results/contexts").glob("demo-cpu-long-beside-short-*.json")
    without, bounded = (run["short_beside"] for run in json.loads(cpu.read_text(encoding="utf-8"))["runs"])
    told = f"{statistics.median(bounded):.2f} s (the median of {len(bounded)}) in place of {without[0]:.1f} with steps"
    assert told in PROSE


def test_both_starts_were_of_the_plan_but_for_the_flag() -> None:
    def settings(result: Mapping[str, Any]) -> dict[str, Any]:
        values = {name: one["value"] for name, one in result["replica"]["settings"].items()}
        return {name: value for name, value in values.items() if name != "port"}

    half, whole = settings(HALF), settings(WHOLE)
    assert {name for name in half if half[name] != whole[name]} == {"long-prefill-token-threshold"}
    assert (half["long-prefill-token-threshold"], whole["long-prefill-token-threshold"]) == (4096, 0)
    assert half["max-num-batched-tokens"] == 2 * 4096
    assert f"steps of {half['max-num-batched-tokens']:,} tokens, prefix caching on" in PROSE
    assert f"the short ones {beside.SHORT}, one after the other" in PROSE
    assert "enable-prefix-caching" not in half  # vLLM's default is on
    assert "VLLM_TUNED_CONFIG_FOLDER" not in half
