"""Two results side by side, and the plot of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dsv4_serve.entrypoint.bench import compare, plot
from dsv4_serve.entrypoint.errors import ConfigError


def row(batch: int, speed: float, length: int = 256) -> dict[str, Any]:
    return {
        "batch": batch, "input": length, "output": 256, "requests": 4, "output_tokens_per_second": speed,
        "tpot_p50": 1000 * batch / speed, "tpot_p99": 12.0, "ttft_p50": 30.0, "ttft_p99": 50.0, "acceptance": 0.89,
    }  # fmt: skip


def result(rows: list[dict[str, Any]], **replica: Any) -> dict[str, Any]:
    whole = {
        "choices": {"profile": "64k"}, "argv": ["vllm", "serve", "m", "--max-num-seqs", "4", "--enforce-eager"], "env": {},
        "patches": {"patches": [{"name": "p", "sha256": "ab" * 32, "state": "applied"}]}, "versions": {"vllm": "0.32.0"},
        "machine": {"gpus": [{"name": "NVIDIA H200"}] * 2, "driver": "580"}, **replica,
    }  # fmt: skip
    head = {"kind": "bench", "date": "2026-11-22T10:00:00+00:00", "subject": "w4a16-h200-tp2-64k", "weights": "dummy"}
    return {**head, "replica": whole, "rows": rows, "start": {}}


@pytest.fixture
def files(tmp_path: Path) -> Any:
    def write(*results: dict[str, Any]) -> list[Path]:
        paths = [tmp_path / f"{number}.json" for number in range(len(results))]
        for path, one in zip(paths, results, strict=True):
            path.write_text(json.dumps(one))
        return paths

    return write


def test_rows_of_the_same_shape_are_divided(files: Any) -> None:
    paths = files(result([row(1, 88.0), row(4, 140.0)]), result([row(1, 132.0), row(16, 500.0)]))
    found = compare.compare(*paths)
    assert [one["batch"] for one in found["rows"]] == [1]
    assert found["rows"][0]["output_tokens_per_second"] == [88.0, 132.0, 1.5]
    assert "88.00 -> 132.00" in compare.text(found)
    assert "nothing else differs" in compare.text(found)


def test_every_common_row_is_divided_in_the_order_of_the_first(files: Any) -> None:
    turn = {**row(2, 60.0), "history": 4096}
    first, second = result([row(4, 140.0), row(1, 88.0), turn]), result([row(1, 44.0), row(4, 350.0), turn])
    found = compare.compare(*files(first, second))
    shapes = [(one["batch"], one["history"], one["output_tokens_per_second"][2]) for one in found["rows"]]
    assert shapes == [(4, 0, 2.5), (1, 0, 0.5), (2, 4096, 1.0)]
    assert [found["rows"][0][name][2] for name in ("tpot_p50", "ttft_p50")] == pytest.approx([0.4, 1.0])
    assert found["only"] == [[], []]


def test_the_history_of_a_row_that_the_other_result_lacks_is_told(files: Any) -> None:
    one, turn = row(1, 88.0), {**row(2, 60.0), "history": 4096}
    found = compare.compare(*files(result([one, turn]), result([one])))
    assert "only in the first: batch 2, 4096 + 256 tokens in, 256 out\n" in compare.text(found)


def test_rows_that_the_other_result_lacks_are_named(files: Any) -> None:
    first, second = result([row(1, 88.0), row(4, 140.0)]), result([row(16, 9.0), row(1, 132.0), row(16, 5.0, 8192)])
    found = compare.compare(*files(first, second))
    shape = {"history": 0, "output": 256}
    assert found["only"] == [
        [{"batch": 4, "input": 256, **shape}],
        [{"batch": 16, "input": 256, **shape}, {"batch": 16, "input": 8192, **shape}],
    ]
    text = compare.text(found)
    assert "\nonly in the first: batch 4, 256 tokens in, 256 out\n" in text
    assert "only in the second: batch 16, 256 tokens in, 256 out; batch 16, 8192 tokens in, 256 out\n" in text
    assert "only in" not in compare.text(compare.compare(*files(first, first)))


def test_a_result_that_ended_early_is_named(files: Any) -> None:
    one = result([row(1, 88.0)])
    found = compare.compare(*files({**one, "failed": "it was stopped"}, one))
    assert found["differs"] == {"ended early": ["it was stopped", "-"]}


@pytest.mark.parametrize(("ended", "why"), [({}, "nothing was measured"), ({"failed": "it hung."}, "it hung")])
def test_a_result_without_rows_is_refused_with_its_reason(files: Any, ended: dict[str, str], why: str) -> None:
    paths = files(result([row(1, 88.0)]), {**result([]), **ended})
    with pytest.raises(ConfigError) as caught:
        compare.compare(*paths)
    assert str(caught.value) == f"{paths[1]} has no rows ({why}); name another result."


def test_weights_that_are_not_told_are_unknown(files: Any) -> None:
    one = result([row(1, 88.0)])
    found = compare.compare(*files(one, {name: value for name, value in one.items() if name != "weights"}))
    assert found["differs"] == {"weights": ["dummy", "unknown"]}


def test_a_machine_that_is_not_told_is_unknown(files: Any) -> None:
    """SGLang's results have a version and no machine; a host without GPUs has no driver."""
    other = {**result([row(1, 88.0)]), "replica": {"versions": {"sglang": "0.5.23"}}}
    cpu = result([row(1, 88.0)], machine={"gpus": [], "driver": "", "cpu": "c"})
    assert compare.compare(*files(other, cpu))["differs"] == {
        "plan": ["unknown", "known"],
        "GPUs": ["unknown", "-"],
        "driver": ["unknown", "-"],
        "cpu": ["unknown", "c"],
        "version of sglang": ["0.5.23", "-"],
        "version of vllm": ["-", "0.32.0"],
    }


def test_what_differs_in_the_context_of_the_figures_is_named(files: Any) -> None:
    other = result(
        [row(1, 90.0)],
        argv=["vllm", "serve", "m", "--max-num-seqs", "16"],
        versions={"vllm": "0.33.0"},
        machine={"gpus": [{"name": "NVIDIA B300"}], "driver": "590"},
        env={"NCCL_PROTO": "LL"},
    )
    differs = compare.compare(*files(result([row(1, 88.0)]), other))["differs"]
    assert differs["--max-num-seqs"] == ["4", "16"]
    assert differs["--enforce-eager"] == ["set", "-"]
    assert differs["version of vllm"] == ["0.32.0", "0.33.0"]
    assert differs["GPUs"] == ["2 x NVIDIA H200", "1 x NVIDIA B300"]
    assert differs["driver"] == ["580", "590"]
    assert differs["NCCL_PROTO"] == ["-", "LL"]


def test_flags_are_those_of_the_settings_and_of_the_command_where_none_were_kept(files: Any) -> None:
    values = {
        "model": "elsewhere",
        "max-num-seqs": 16,
        "cudagraph-capture-sizes": [1, 2],
        "NCCL_PROTO": "LL",
        "gate.tokens": 8,
    }
    settings = {name: {"value": value} for name, value in values.items()}
    other = result([row(1, 90.0)], settings=settings, env={"NCCL_PROTO": "LL"})
    differs = compare.compare(*files(result([row(1, 88.0)]), other))["differs"]
    assert differs == {
        "--max-num-seqs": ["4", "16"],
        "--enforce-eager": ["set", "-"],
        "--cudagraph-capture-sizes": ["-", "[1,2]"],
        "NCCL_PROTO": ["-", "LL"],
    }


def test_results_without_a_common_row_are_refused(files: Any) -> None:
    with pytest.raises(ConfigError, match="no row with the same batch size, input and output"):
        compare.compare(*files(result([row(1, 88.0)]), result([row(2, 88.0)])))


def test_another_kind_of_result_is_refused(files: Any) -> None:
    with pytest.raises(ConfigError, match="a result of `smoke`"):
        compare.compare(*files({**result([row(1, 1.0)]), "kind": "smoke"}, result([row(1, 1.0)])))


def test_a_replica_without_a_plan_compares_too(files: Any) -> None:
    one = {**result([row(1, 88.0)]), "replica": {}}
    assert compare.compare(*files(one, one))["differs"] == {}


def test_a_figure_of_0_has_no_ratio_and_is_drawn(files: Any) -> None:
    none = result([{**row(1, 88.0), "tpot_p50": 0.0}])
    found = compare.compare(*files(none, result([row(1, 44.0)])))
    assert found["rows"][0]["tpot_p50"][2] is None
    assert found["rows"][0]["output_tokens_per_second"][2] == 0.5
    assert "0.00 -> 22.73  - " in compare.text(found)
    ET.fromstring(plot.svg([none]))


def test_the_plot_has_a_line_for_each_result_and_length_in_both_charts() -> None:
    text = plot.svg([result([row(1, 88.0), row(16, 360.0), row(1, 80.0, 8192)]), result([row(4, 140.0)])])
    root = ET.fromstring(text)
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 6
    assert "w4a16-h200-tp2-64k, 8,192 tokens in (2026-11-22)" in text


def test_more_is_higher_and_nothing_leaves_the_chart() -> None:
    text = plot.svg([result([row(1, 88.0), row(4, 800.0)])])
    root = ET.fromstring(text)
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))[:2]
    low, high = (float(circle.get("cy", "")) for circle in circles)
    assert 40 <= high < low <= 280


@pytest.mark.parametrize(
    ("speed", "labels"),
    [(800.0, "0 200 400 600 800"), (210.0, "0 50 100 150 200 250"), (2527.6, "0 1,000 2,000 3,000"), (0.0, "0 0.25 0.5 0.75 1")],
)  # fmt: skip
def test_ticks_are_short_numbers_and_the_axis_ends_above_the_data(speed: float, labels: str) -> None:
    first = plot.plot([result([{**row(1, 1.0), "output_tokens_per_second": speed}])]).charts[0]
    assert [label for _, label in first.levels] == labels.split()
    ((_, y),) = first.curves[0].points
    assert first.top <= y <= first.bottom


def test_a_long_plot_says_how_many_lines_it_leaves_out() -> None:
    drawn = plot.plot([result([row(1, 10.0), row(1, 9.0, 8192)])] * 3, most=4)
    assert len(drawn.legend) == len(drawn.charts[0].curves) == 4
    assert drawn.left_out == 2


def test_the_plot_follows_light_and_dark_and_names_its_axis() -> None:
    text = plot.svg([result([row(1, 88.0)])])
    assert text.count("batch size (concurrent requests)") == 2
    assert "prefers-color-scheme: dark" in text
    used = {one.get("class", "").split()[0] for one in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}circle")}
    assert all(f".plot .{name} {{" in text for name in used)


def test_a_subject_cannot_break_the_plot() -> None:
    ET.fromstring(plot.svg([{**result([row(1, 88.0)]), "subject": "<a & b>"}]))
