"""Results of measured kernels in short, and the tables that ship: those of the fastest schedules in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.plan import TUNED_KERNELS
from qualification.gpu import flashinfer_experts
from qualification.gpu.expert_kernels import __main__ as program
from qualification.gpu.expert_kernels import choose, kernels, layers, schedules
from qualification.gpu.expert_kernels.layers import TOP_K

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "qualification/results/kernels"
TABLES = sorted((ROOT / "profiles/hardware/h200-kernels").iterdir())
[INT4] = RESULTS.glob("humming-int4-*.json")
HOST = {"--driver": "580.159.04", "--date": "2026-11-30"}
PROGRAMS: list[tuple[Callable[[], Any], dict[str, str]]] = [
    (program.main, HOST | {"--vllm": "0.32.0"}),
    (flashinfer_experts.main, HOST),
]
"""Programs that keep results, and what each has to be told."""


def result_of(table: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The sublayer that a table is for, and the result with it."""
    every = [json.loads(file.read_text()) for file in RESULTS.glob("humming-*.json")]
    [found] = [
        (sublayer, result)
        for result in every
        for sublayer, layer in result["layers"].items()
        if layer == table["layer_config"]
    ]
    return found


def at(table: dict[str, Any], rows: int) -> schedules.Schedule | None:
    """A table's schedule for so many rows; None where it leaves the choice to Humming."""
    return next((one for low, high, one in table["tuning_config"] if low < rows <= high), None)


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.name)
def test_a_table_that_ships_has_the_schedules_of_its_result(file: Path) -> None:
    table = json.loads(file.read_text())
    sublayer, result = result_of(table)
    assert file.name == choose.file_name(table["layer_config"], table["device_name"])
    assert table["device_name"] == result["hardware"]
    assert table["humming_version"] == result["versions"]["humming-kernels"]
    assert table["compute_config"] == kernels.COMPUTE
    used = []
    for row in result["rows"]:
        schedule, told = at(table, row["tokens"] * TOP_K), row[sublayer]
        used += [schedule] if schedule else []
        assert schedules.name(schedule) == told["taken"]["schedule"] if schedule else told["taken"] == told["own"]
    assert all(one[2] in used for one in table["tuning_config"])  # nothing that was not measured


@pytest.mark.parametrize(("name", "form", "requests"), [("plan-tables", layers.GROUPS, 1), ("int4-tables", "int4", 16)])
def test_a_replica_that_was_measured_with_tables_had_the_kernel_that_ships(name: str, form: str, requests: int) -> None:
    """Its result has the folder's name alone, and in its profile the name of the longest kernel, cut."""
    [file] = RESULTS.parent.glob(f"bench/*-{name}-*.json")
    result = json.loads(file.read_text())
    assert result["replica"]["env"][TUNED_KERNELS] == "tables"
    tokens = 2 * requests  # with one draft token
    tables = [json.loads(table.read_text()) for table in TABLES]
    [(w13, rows)] = [
        (table, of["rows"])
        for table in tables
        for sublayer, of in [result_of(table)]
        if (of["format"], sublayer) == (form, "w13")
    ]
    [own] = [row["w13"]["own"] for row in rows if row["tokens"] == tokens]
    schedule = at(w13, tokens * TOP_K)
    assert schedule
    assert shapes(schedule) in longest(result, requests)
    assert "{}x{}x{}/{}x{}".format(*schedule["block_shape"], *schedule["warp_shape"]) not in own["schedule"]


def test_the_replica_beside_it_had_the_kernel_that_humming_chooses() -> None:
    [file] = RESULTS.parent.glob("bench/*-humming-choice-*.json")
    result = json.loads(file.read_text())
    assert TUNED_KERNELS not in result["replica"]["env"]
    [own] = [row["w13"]["own"] for row in json.loads(INT4.read_text())["rows"] if row["tokens"] == 32]
    block, warp = (list(map(int, one.split("x"))) for one in own["schedule"].split("-")[0].split("/"))
    assert shapes({"block_shape": block, "warp_shape": warp}) in longest(result, 16)


def longest(result: dict[str, Any], requests: int) -> str:
    """The longest kernel of experts in a result's profile."""
    [experts] = [one for one in result["kernels"][str(requests)] if one["name"] == "experts"]
    return str(experts["longest"])


def shapes(schedule: schedules.Schedule) -> str:
    """How a kernel's name begins to tell its schedule, as far as a profile keeps it."""
    block, warp = (", ".join(f"{size}u" for size in schedule[key]) for key in ("block_shape", "warp_shape"))
    return f"Shape<{block}>, Shape<{warp}"[:-2]


def test_tables_ship_for_both_products_of_the_formats_that_plans_have() -> None:
    found = [result_of(json.loads(file.read_text())) for file in TABLES]
    shipped = sorted((result["format"], sublayer) for sublayer, result in found)
    assert shipped == sorted((form, sublayer) for form in (layers.GROUPS, "int4") for sublayer in layers.SUBLAYERS)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("humming-*.json")), ids=lambda file: file.stem)
def test_what_a_table_takes_is_the_fastest_or_like_it_and_never_slower_than_humming(file: Path) -> None:
    result = json.loads(file.read_text())
    assert len(result["rows"]) > 8
    for row in result["rows"]:
        parts = [row[sublayer] for sublayer in layers.SUBLAYERS]
        sums = {who: sum(part[who]["us"] for part in parts) for who in ("own", "taken", "fastest")}
        again = {who: row["sorting_us"] * (len({rows_of(part[who]) for part in parts}) - 1) for who in sums}
        assert [row["own_us"], row["taken_us"]] == pytest.approx([sums["own"], sums["taken"]])
        assert row["ratio"] == pytest.approx(sums["taken"] / sums["own"], abs=5e-5)
        taken = any(part["taken"] != part["own"] for part in parts)
        least = 1 - choose.LEAST_GAIN if taken else 1
        assert row["ratio"] <= least, row["tokens"]
        whole = {who: sums[who] + again[who] for who in sums}  # tiles of other rows: vLLM sorts twice
        most = whole["fastest"] * (1 + (choose.ALIKE if taken else choose.LEAST_GAIN))
        assert whole["taken"] <= most, row["tokens"]


def rows_of(part: dict[str, Any]) -> int:
    """The rows of a schedule's tiles."""
    return int(part["schedule"].partition("x")[0])


def test_the_figures_in_the_hardware_file_are_those_of_its_results() -> None:
    text = " ".join((ROOT / "profiles/hardware/h200.toml").read_text().replace("# ", "").split())
    fp8, int4 = (ratios(name) for name in named(text))
    told = f"took {span(fp8, 2, 256)} times as long at 2 to 256 tokens and {span(fp8, 384, 8192)} times"
    assert told in text
    assert f"both products took {span(int4, 2, 8192)} times as long at 2 to 8,192 tokens" in text


def ratios(name: str) -> dict[int, float]:
    return {row["tokens"]: row["ratio"] for row in json.loads((RESULTS / name).read_text())["rows"]}


def span(found: dict[int, float], low: int, high: int) -> str:
    """The least and the largest ratio at some numbers of tokens."""
    here = [ratio for tokens, ratio in found.items() if low <= tokens <= high]
    return f"{min(here):.2f} to {max(here):.2f}"


def named(text: str) -> list[str]:
    """The results of kernels that a text names, in its order."""
    return [word.partition("results/kernels/")[2].rstrip(").") for word in text.split() if "results/kernels/" in word]


def rows(sublayer: str, own_us: float, us: float) -> list[dict[str, Any]]:
    """A layer's rows at 8 tokens: Humming's own choice, and a faster schedule."""
    layer, made = f"mxfp4-fp8,{sublayer},2", []
    for blocks, time_us in ((1, own_us), (2, us)):
        schedule = {
            "mma_type": "wgmma", "block_shape": [8, 256, 128], "warp_shape": [8, 32, 128], "num_stages": 5,
            "num_ctas_per_sm": blocks, "use_stream_k": False, "use_warp_spec": False, "use_tma": False,
        }  # fmt: skip
        made.append(
            {
                "layer": layer, "tokens": 8, "name": schedules.name(schedule), "schedule": schedule, "own": blocks == 1,
                "us": time_us, "spread": 0.001, "error": 0.0, "gb_s": 2000, "share": 0.5, "tflop_s": 9.0,
            }
        )  # fmt: skip
    head = {"layer": layer, "device": "NVIDIA H200", "layer_config": {"of": sublayer}, "humming": "0.1.17", "tried": 2}
    return [
        head, *made, {"layer": layer, "tokens": 8, "align_us": 4.0}, {"layer": layer, "tokens": 8, "again": own_us + 1},
        {"layer": layer, "lost": "some", "why": "refused"},
    ]  # fmt: skip


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the step of a program that makes a result of rows, and returns the result."""

    def kept(main: Callable[[], Any], facts: dict[str, str], measured: list[dict[str, Any]]) -> dict[str, Any]:
        file, out = tmp_path / "rows.jsonl", tmp_path / "result.json"
        file.write_text("".join(json.dumps(row) + "\n" for row in measured))
        told = [word for fact in facts.items() for word in fact]
        monkeypatch.setattr(sys, "argv", ["program", "keep", str(file), "--out", str(out), *told])
        assert not main()
        found: dict[str, Any] = json.loads(out.read_text())
        assert len(out.read_text().splitlines()) == len(found) + len(found["rows"]) + 3  # each on a line of its own
        return found

    return kept


@pytest.mark.parametrize(("main", "facts"), PROGRAMS, ids=["humming", "flashinfer"])
def test_a_result_is_kept_with_all_that_its_rows_do_not_say_or_not_at_all(
    main: Callable[[], Any], facts: dict[str, str], keep: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for fact in facts:
        with pytest.raises(SystemExit, match="2"):
            keep(main, {name: value for name, value in facts.items() if name != fact}, [])
        assert capsys.readouterr().err.endswith(f"the following arguments are required: {fact}\n")
    with pytest.raises(SystemExit, match="2"):
        keep(main, facts | {"--date": "today"}, [])
    assert "argument --date: invalid day value: 'today'" in capsys.readouterr().err


@pytest.mark.parametrize(("main", "facts"), PROGRAMS, ids=["humming", "flashinfer"])
def test_rows_of_nothing_are_no_result(
    main: Callable[[], Any], facts: dict[str, str], keep: Callable[..., Any]
) -> None:
    with pytest.raises(SystemExit, match=r"rows.jsonl: its rows are of 0 .*, and a result is of one"):
        keep(main, facts, [])


@pytest.mark.parametrize("file", sorted(RESULTS.iterdir()), ids=lambda file: file.stem)
def test_every_result_names_hardware_driver_day_and_versions(file: Path) -> None:
    result = json.loads(file.read_text())
    assert list(result)[:6] == ["program", "hardware", "gpus", "driver", "date", "versions"]
    assert all(result[name] for name in list(result)[:6])


def test_keep_writes_what_was_chosen_and_measured(keep: Callable[..., dict[str, Any]]) -> None:
    measured = [*rows("w13", 60.0, 50.0), *rows("w2", 40.0, 20.0)]
    result = keep(*PROGRAMS[0], measured)
    assert (result["hardware"], result["driver"], result["date"]) == ("NVIDIA H200", "580.159.04", "2026-11-30")
    assert result["versions"] == {"humming-kernels": "0.1.17", "vllm": "0.32.0"}
    assert result["layers"] == {"w13": {"of": "w13"}, "w2": {"of": "w2"}}
    assert result["not_run"] == {"w13": 1, "w2": 1}
    [row] = result["rows"]
    assert (row["own_us"], row["taken_us"], row["ratio"], row["sorting_us"]) == (100.0, 70.0, 0.7, 4.0)
    assert row["w2"]["own_again_us"] == 41.0
    assert [row["w13"][who]["us"] for who in ("own", "taken", "fastest")] == [60.0, 50.0, 50.0]
    assert row["w13"]["taken"]["schedule"] == measured[2]["name"]


def test_only_the_kernels_that_multiply_are_products(keep: Callable[..., dict[str, Any]]) -> None:
    """FlashInfer's names have `gemm` in namespaces, and the names of what prepares a product have it, too."""
    times = {
        "_ZN7cutlass13device_kernelINS_4gemm6kernel1A": 150.0,
        "void tensorrt_llm::kernels::cutlass_kernels::expandInputRowsKernel<moe_gemm>": 4.0,
        "_ZN7cutlass13device_kernelINS_4gemm6kernel1B": 80.0,
        "cudaGraphLaunch": 0.0,
    }
    row = {"layer": "flashinfer,2", "device": "NVIDIA H200", "flashinfer": "0.7.2", "finite": True, "kernels": times}
    old = [row | {"tokens": tokens, "us": 270.0, "products_us": 234.0} for tokens in (32, 2)]
    result = keep(*PROGRAMS[1], old)
    assert [one["tokens"] for one in result["rows"]] == [2, 32]
    assert [result["rows"][0][name] for name in ("us", "products_us", "products")] == [270.0, 230.0, [150.0, 80.0]]


def test_the_kept_rows_of_flashinfer_have_one_kernel_a_product_or_one_for_both() -> None:
    [file] = RESULTS.glob("flashinfer-*.json")
    for row in json.loads(file.read_text())["rows"]:
        assert 1 <= len(row["products"]) <= 2
        assert sum(row["products"]) == pytest.approx(row["products_us"])
        assert row["products_us"] < row["us"]
        assert row["finite"]
