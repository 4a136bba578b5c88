"""Conversations that send their history again: the options, the load generator's dataset, the rows and their comparison."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import command, compare, goodput, load, measure
from dsv4_serve.entrypoint.bench.load import Tokenizer
from dsv4_serve.entrypoint.bench.options import BenchRequest, LoadMatrix, LoadShape
from dsv4_serve.entrypoint.cli import main
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.errors import ConfigError

WHERE = Endpoint("http://127.0.0.1:9", None, None)
SHAPE = LoadShape(4, 256, 128, 16, 4, 7, history=16384)
SAVED = {
    "completed": 16, "output_throughput": 88.3, "duration": 7.7, "p50_tpot_ms": 6.0, "p99_tpot_ms": 7.0,
    "p50_ttft_ms": 40.0, "p99_ttft_ms": 90.0,
}  # fmt: skip


def arguments(shape: LoadShape) -> list[str]:
    return load.command(shape, WHERE, "m", Tokenizer("t"), "/tmp/x")


def test_each_conversation_has_a_prefix_of_its_own() -> None:
    given = dict(itertools.pairwise(arguments(SHAPE)))
    assert given["--dataset-name"] == "prefix_repetition"
    assert (given["--prefix-repetition-prefix-len"], given["--prefix-repetition-suffix-len"]) == ("16384", "256")
    assert (given["--prefix-repetition-num-prefixes"], given["--num-prompts"]) == ("4", "16")
    assert given["--prefix-repetition-output-len"] == "128"
    assert not [word for word in arguments(SHAPE) if word.startswith("--random")]
    assert "prefix_repetition" not in arguments(LoadShape(4))


def test_every_flag_is_one_of_the_installed_generator() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("no vLLM here")
    folder = Path(found.origin).parent / "benchmarks"
    known = (folder / "serve.py").read_text() + (folder / "datasets" / "datasets.py").read_text()
    assert [word for word in arguments(SHAPE) if word.startswith("--") and f'"{word}"' not in known] == []


def test_every_shape_of_a_matrix_has_the_history() -> None:
    shapes = list(LoadMatrix((1, 4), (256,), 128, 3, history=1000).shapes())
    assert [(shape.history, shape.requests, shape.warm_up, shape.seed) for shape in shapes] == [
        (1000, 3, 1, 0), (1000, 12, 4, 1),
    ]  # fmt: skip


def row(history: int) -> dict[str, Any]:
    return {**load.row(LoadShape(4, 256, 128, 16, history=history), SAVED).to_json(), "good_share": 1.0}


def test_the_input_column_and_the_closing_sentence_count_the_history() -> None:
    assert measure.lines([row(16384)])[1][1] == "16384 + 256"
    assert measure.lines([row(0)])[1][1] == "256"
    assert goodput.summary([row(16384)], {"ttft": 1.0}).endswith(": 4 with 16,640 tokens in.")


def test_rows_of_another_history_are_not_divided(tmp_path: Path) -> None:
    head = {"kind": "bench", "date": "2026-11-29T10:00:00+00:00", "subject": "x", "weights": "", "start": {}}
    paths = [tmp_path / f"{history}.json" for history in (0, 16384)]
    for path in paths:
        path.write_text(json.dumps({**head, "replica": {}, "rows": [row(int(path.stem)) | {"good_share": None}]}))
    with pytest.raises(ConfigError, match="no row with the same"):
        compare.compare(*paths)
    assert "16384 + 256" in compare.text(compare.compare(paths[1], paths[1]))


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> list[BenchRequest]:
    requests: list[BenchRequest] = []
    body = {"subject": "x", "weights": "", "start": {}, "file": "f", "rows": []}
    monkeypatch.setattr(command, "bench", lambda _replica, request, _environ: requests.append(request) or [body])
    main.main(["bench", "--url", "http://127.0.0.1:9", *argv])
    return requests


def test_a_context_holds_history_prompt_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    (request,) = run(monkeypatch, "--context", "65536", "--history", "60000", "--output", "256")
    assert (request.matrix.history, request.matrix.inputs) == (60000, (5280,))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--history", "-1"), "--history -1: must be 0 or more"),
        (("--history", "9", "--requests-per-batch", "1"), "so that a history is sent again"),
        (("--history", "9", "--share", "f.json"), "--share does not take results with --history"),
        (("--history", "900", "--context", "1000"), "must be more than the 1156 tokens of --output and --history"),
    ],
)
def test_what_makes_no_conversation_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    assert run(monkeypatch, *argv) == []
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
