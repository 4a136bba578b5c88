"""Results: written once, read back in order, and what is no result is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import results
from dsv4_serve.entrypoint.errors import ConfigError, HostError

ROOT = Path(__file__).parents[2]


def test_a_result_is_read_back_with_its_kind_and_date(tmp_path: Path) -> None:
    path = results.write(tmp_path, "bench", {"subject": "W4A16 h200/tp2", "rows": []})
    assert path.parent == tmp_path / "bench"
    assert path.name.startswith("w4a16-h200-tp2-2")
    [read] = results.read(tmp_path)
    assert (read["kind"], read["subject"], read["file"]) == ("bench", "W4A16 h200/tp2", str(path))
    assert read["date"].endswith("+00:00")


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    paths = [results.write(tmp_path, "smoke", {"subject": "x", "number": number}) for number in range(5)]
    assert len(set(paths)) == 5
    assert [json.loads(path.read_text())["number"] for path in paths] == [0, 1, 2, 3, 4]


def test_the_oldest_comes_first_whatever_its_kind(tmp_path: Path) -> None:
    for kind, date in (("bench", "2026-11-22T10:00:00+00:00"), ("eval", "2026-11-21T10:00:00+00:00")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.json").write_text(json.dumps({"kind": kind, "date": date, "subject": "x", "rows": []}))
    assert [one["kind"] for one in results.read(tmp_path)] == ["eval", "bench"]


@pytest.mark.parametrize(
    "text",
    ["no json", "[" * 10**5, "[]", "{}", '{"kind": "bench"}', '{"kind": "other", "date": "2026-11-22"}'],
)
def test_a_file_that_is_not_a_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ConfigError, match=r"other\.json is not a result"):
        results.read(tmp_path)


ROW = {
    "batch": 1, "input": 8, "output": 8, "output_tokens_per_second": 1.0, "tpot_p50": 0.0, "tpot_p99": 0.0,
    "ttft_p50": 0.0, "ttft_p99": 0.0, "acceptance": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"rows": 5}, "rows: "),
        ({"rows": [3]}, "rows.0: "),
        ({"rows": [ROW, {"a": 1}]}, "rows.1.batch: "),
        ({"rows": [{**ROW, "tpot_p50": -1.0}]}, "rows.0.tpot_p50: "),
        ({"rows": [{**ROW, "ttft_p50": float("nan")}]}, "rows.0.ttft_p50: "),
        ({"rows": [ROW], "replica": None}, "replica: "),
        ({"rows": [ROW], "replica": {"machine": {"gpus": [{}]}}}, "replica.machine.gpus.0.name: "),
    ],
)
def test_a_result_of_bench_that_cannot_be_one_says_where(tmp_path: Path, changed: dict, where: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"kind": "bench", "date": "2026-11-22", "subject": "x", **changed}))
    with pytest.raises(ConfigError, match=rf"one\.json is not a result of this version \({where}"):
        results.read_one(path)


def test_a_missing_result_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json"):
        results.read_one(tmp_path / "none.json")


def test_an_unknown_kind_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a kind of result: bench, canary, eval, qualify, smoke, tune"):
        results.write(tmp_path, "layout", {"subject": "x"})


def test_a_folder_that_cannot_be_written_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot write"):
        results.write(tmp_path / "file", "bench", {"subject": "x"})
    with pytest.raises(HostError, match="cannot write"):
        results.check_writable(tmp_path / "file", "bench")


def test_trying_a_folder_leaves_nothing_there(tmp_path: Path) -> None:
    results.check_writable(tmp_path / "new", "bench")
    assert not list(tmp_path.iterdir())


def test_the_results_of_this_repository_are_all_read() -> None:
    kinds = {one["kind"] for one in results.read(ROOT / "qualification" / "results")}
    assert {"layout", "faults"} <= kinds
