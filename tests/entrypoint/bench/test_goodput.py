"""Requests within limits: the options, vLLM's argument and figures, the table, the closing sentence, the comparison."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint import results
from dsv4_serve.entrypoint.bench import command, compare, goodput, load, measure
from dsv4_serve.entrypoint.bench.load import Tokenizer
from dsv4_serve.entrypoint.bench.options import BenchRequest, LoadMatrix, LoadShape
from dsv4_serve.entrypoint.cli import main
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.errors import ConfigError, UsageError
from dsv4_serve.entrypoint.report import sections
from dsv4_serve.entrypoint.report.parts import Table, Text

LIMITS = {"ttft": 2000.0, "tpot": 50.0}
WHERE = Endpoint("http://127.0.0.1:9", None, None)
SAVED = {
    "completed": 16, "output_throughput": 88.3, "duration": 7.7, "p50_tpot_ms": 6.0, "p99_tpot_ms": 7.0,
    "p50_ttft_ms": 40.0, "p99_ttft_ms": 90.0, "request_goodput": 15 / 7.7,
}  # fmt: skip


def row(batch: int, share: float | None, length: int = 256) -> dict[str, Any]:
    return {
        "batch": batch, "input": length, "output": 256, "output_tokens_per_second": 100.0, "tpot_p50": 6.0, "tpot_p99": 7.0,
        "ttft_p50": 30.0, "ttft_p99": 50.0, "acceptance": 0.89, "good_share": share,
        "request_goodput": None if share is None else 10 * share,
    }  # fmt: skip


def result(*rows: dict[str, Any], **limits: float) -> dict[str, Any]:
    body = {
        "kind": "bench",
        "date": "2026-11-29T10:00:00+00:00",
        "subject": "x",
        "weights": "",
        "start": {},
        "file": "f",
    }
    return {**body, "replica": {}, "goodput": limits, "rows": [*rows]}


def test_limits_reach_the_load_generator_of_vllm() -> None:
    (shape,) = LoadMatrix((4,), limits=goodput.limits(["ttft:2000", "tpot:50"])).shapes()
    argv = load.command(shape, WHERE, "m", Tokenizer("t"), "/tmp/x")
    at = argv.index("--goodput")
    assert argv[at : at + 4] == ["--goodput", "ttft:2000.0", "tpot:50.0", "--ignore-eos"]
    assert "--goodput" not in load.command(LoadShape(4), WHERE, "m", Tokenizer("t"), "/tmp/x")


def test_the_installed_generator_knows_the_limits_and_saves_the_rate() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("no vLLM here")
    source = (Path(found.origin).parent / "benchmarks" / "serve.py").read_text()
    assert f"VALID_NAMES = {json.dumps(goodput.NAMES)}" in source
    assert '"request_goodput": metrics.request_goodput' in source
    assert "request_goodput=good_completed / dur_s" in source


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ttft", "the limit must be a number of milliseconds above 0"),
        ("ttft:", "the limit must be a number"),
        ("ttft:2s", "the limit must be a number"),
        ("tpot:0", "the limit must be a number"),
        ("tpot:-5", "the limit must be a number"),
        ("tpot:nan", "the limit must be a number"),
        ("tpot:inf", "the limit must be a number"),
        ("itl:50", "NAME is ttft, tpot or e2el"),
        ("TTFT:50", "NAME is ttft, tpot or e2el"),
    ],
)
def test_a_bad_limit_is_refused_in_one_sentence(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        goodput.limits(["e2el:9000", word])
    assert str(caught.value).startswith(f"--goodput {word}: ")


def test_a_limit_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="ttft is given twice"):
        goodput.limits(["ttft:1", "ttft:2"])


def test_a_bad_limit_is_refused_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["bench", "--url", "http://127.0.0.1:9", "--goodput", "ttft:soon"]) == 64
    assert capsys.readouterr().err == "dsv4: --goodput ttft:soon: the limit must be a number of milliseconds above 0.\n"


def test_share_and_rate_are_taken_from_what_vllm_saved() -> None:
    made = load.row(LoadShape(4, requests=16, limits=LIMITS), SAVED)
    assert (made.good_share, made.request_goodput) == (0.9375, 1.9481)
    assert load.row(LoadShape(4, requests=16, limits=LIMITS), {**SAVED, "request_goodput": 0.0}).good_share == 0
    without = load.row(LoadShape(4, requests=16), {**SAVED, "request_goodput": None})
    assert (without.good_share, without.request_goodput) == (None, None)


def test_the_table_has_a_column_only_where_limits_were_given() -> None:
    headings, first, second = measure.lines([row(1, 1.0), row(4, 0.9375)])
    assert (headings[-1], first[-1], second[-1]) == ("within limits", "100.0% (10.00/s)", "93.8% (9.38/s)")
    assert measure.lines([row(1, None)])[0][-1] == "acceptance"


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([row(1, 1.0), row(4, 0.99), row(16, 0.9899)], "4 with 256 tokens in."),
        ([row(1, 0.5)], "none with 256 tokens in."),
        ([row(1, 1.0), row(4, 1.0), row(1, 0.0, 8192)], "4 with 256 tokens in, none with 8,192 tokens in."),
    ],
)
def test_the_last_line_names_the_largest_batch(rows: list[dict[str, Any]], answer: str) -> None:
    line = measure.text(result(*rows, **LIMITS)).splitlines()[-2]
    assert line == f"The largest batch with at least 99% of the requests within TTFT 2,000 ms and TPOT 50 ms: {answer}"


def test_a_result_without_limits_has_no_such_line() -> None:
    assert "largest batch" not in measure.text(result(row(1, None)))


def test_the_report_has_the_column_and_the_sentence() -> None:
    section = sections.bench([result(row(4, 1.0), **LIMITS)])
    (table,) = [part for part in section.parts if isinstance(part, Table)]
    assert (table.headings[-1], table.rows[0][-1]) == ("within limits", "100.0% (10.00/s)")
    assert any(isinstance(part, Text) and part.text.startswith("The largest batch") for part in section.parts)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Path]]:
    def write(*bodies: dict[str, Any]) -> list[Path]:
        paths = [tmp_path / f"{number}.json" for number in range(len(bodies))]
        for path, body in zip(paths, bodies, strict=True):
            path.write_text(json.dumps(body))
        return paths

    return write


def test_results_with_the_same_limits_are_compared(files: Callable[..., list[Path]]) -> None:
    found = compare.compare(*files(result(row(1, 0.5), **LIMITS), result(row(1, 1.0), **LIMITS)))
    assert found["rows"][0]["request_goodput"] == [5.0, 10.0, 2.0]
    text = compare.text(found)
    assert "within limits/s" in text
    assert "50.0% -> 100.0%" in text
    assert "5.00 -> 10.00" in text


def test_other_limits_are_named_and_their_requests_are_not_divided(files: Callable[..., list[Path]]) -> None:
    found = compare.compare(*files(result(row(1, 0.5), **LIMITS), result(row(1, 1.0), ttft=1000.0)))
    assert "request_goodput" not in found["rows"][0]
    assert found["differs"]["limits"] == ["TTFT 2,000 ms and TPOT 50 ms", "TTFT 1,000 ms"]
    assert "within limits" not in compare.text(found)


def test_an_impossible_share_makes_no_result(files: Callable[..., list[Path]]) -> None:
    with pytest.raises(ConfigError, match="not a result of this version"):
        results.read_one(files(result(row(1, 1.5), **LIMITS))[0])


def test_a_result_of_the_command_line_is_of_its_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[BenchRequest] = []

    def measured(_replica: object, request: BenchRequest, _environ: object) -> list[dict[str, Any]]:
        requests.append(request)
        return [result(row(1, 1.0), **request.matrix.limits)]

    monkeypatch.setattr(command, "bench", measured)
    assert main.main(["bench", "--url", "http://127.0.0.1:9", "--goodput", "ttft:2000", "tpot:50", "--batch", "1"]) == 0
    assert requests[0].matrix.limits == LIMITS
    assert "within TTFT 2,000 ms and TPOT 50 ms: 1 with 256 tokens in." in capsys.readouterr().out
