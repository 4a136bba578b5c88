"""Two engines measured in turn: same prompts, both results, their ratios and noise, and what one of them answers wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import compare, load, plot, rounds
from dsv4_serve.entrypoint.bench.load import LoadFailed, Row, Tokenizer
from dsv4_serve.entrypoint.bench.options import LoadMatrix, LoadShape
from dsv4_serve.entrypoint.cli import main
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.local_replica import Stopped
from dsv4_serve.entrypoint.errors import ConfigError, UserError
from tests.support.http_servers import Start, http_servers

SMALL = ("--batch", "1", "4", "--health", "none", "--tokenizer", "t")


@pytest.fixture
def servers() -> Iterator[Start]:
    with http_servers() as start:
        yield start


def engine(kind: str, model: str = "m", key: str = "", context: int | None = 4096) -> type[BaseHTTPRequestHandler]:
    """A server that lists one model, and tells its version as SGLang does."""
    served = {"id": model, "owned_by": kind, "max_model_len": context}
    pages = {"/v1/models": {"data": [served]}, "/server_info": {"version": "0.5.23", "api_key": "sesame-9"}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = not key or self.headers.get("Authorization") == f"Bearer {key}"
            status = 404 if self.path not in pages else 200 if allowed else 401
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(pages.get(self.path, {})).encode())

    return Handler


class Loads:
    """The load generator's place: a speed for each engine and round, and everything that was asked of it."""

    def __init__(self, speeds: dict[str, list[float]]) -> None:
        self.speeds, self.calls = speeds, list[tuple[str, LoadShape]]()
        self.fails: Callable[[str, LoadShape], UserError | None] = lambda _url, _shape: None

    def run(self, shape: LoadShape, endpoint: Endpoint, _model: str, _tokenizer: Tokenizer, _environ: Any) -> Row:
        self.calls.append((endpoint.url, shape))
        if error := self.fails(endpoint.url, shape):
            raise error
        speed = self.speeds[endpoint.url][shape.round - 1] * shape.batch
        figures = dict.fromkeys(("p50_tpot_ms", "p99_tpot_ms", "p50_ttft_ms", "p99_ttft_ms", "duration"), 10.0)
        saved = {"completed": shape.requests, "output_throughput": speed, **figures}
        tokens = {"total_input_tokens": 256 * shape.requests, "total_output_tokens": 256 * shape.requests}
        return load.row(shape, saved | tokens)


@pytest.fixture
def pair(servers: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, str, Loads]:
    """The URLs of the replica and of the other engine, and their loads."""
    monkeypatch.chdir(tmp_path)
    ours, theirs = servers(engine("vllm")), servers(engine("sglang", "x/y"))
    loads = Loads({ours: [110.0, 99.0], theirs: [100.0, 90.0]})
    monkeypatch.setattr(load, "run", loads.run)
    return ours, theirs, loads


def bench(ours: str, theirs: str, *argv: str) -> int:
    return main.main(["bench", "--url", ours, "--engine-url", theirs, *SMALL, *argv])


def kept(folder: Path = Path("qualification")) -> dict[str, dict[str, Any]]:
    return {
        found["subject"]: found for path in (folder / "bench").glob("*.json") if (found := json.loads(path.read_text()))
    }


def test_each_gets_the_same_prompts_in_turn_and_the_first_one_changes(pair: tuple[str, str, Loads]) -> None:
    ours, theirs, loads = pair
    assert bench(ours, theirs, "--seed", "7") == 0
    assert [url for url, _ in loads.calls] == [theirs, ours, ours, theirs, theirs, ours, ours, theirs]
    shapes = [[shape for url, shape in loads.calls if url == one] for one in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert [(shape.batch, shape.round, shape.seed) for shape in shapes[0]] == [
        (1, 1, 7),
        (4, 1, 8),
        (1, 2, 9),
        (4, 2, 10),
    ]


def test_both_results_and_their_ratios_with_noise_are_there(
    pair: tuple[str, str, Loads], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, _ = pair
    assert bench(ours, theirs, "--plot", "speed.svg") == 0
    out = capsys.readouterr().out
    assert set(kept()) == {"unknown replica", "sglang-x/y"}
    other = kept()["sglang-x/y"]
    assert (other["replica"], other["weights"]) == ({"versions": {"sglang": "0.5.23"}}, "unknown")
    assert other["hardware"] == "not stated"
    assert "sglang-x/y (unknown)\nhardware: not stated\n" in out
    assert "sesame-9" not in json.dumps(other)
    assert other["interleaved"]["with"] == ["sglang-x/y", "unknown replica"]
    assert "unknown replica / sglang-x/y" in out
    assert "95.00 -> 104.50" in out
    assert "1.10 ± 0.12" in out  # 110/90 and 99/100
    assert (
        "x 1.10 as a geometric mean of 2 rows, x 1.10 at least (batch 1, 256 tokens in); 2 rows differ by no more"
        in out
    )
    assert Path("speed.svg").read_text().count("<polyline") == 4


def test_programs_get_files_and_ratios(pair: tuple[str, str, Loads], capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs, _ = pair
    assert bench(ours, theirs, "--rounds", "1", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["engines"] == ["sglang-x/y", "unknown replica"]
    assert all(Path(file).is_file() for file in found["results"])
    assert found["rows"][0]["output_tokens_per_second"] == [100.0, 110.0, pytest.approx(1.1)]
    assert "noise" not in found["rows"][0]


def test_the_hardware_that_the_user_states_is_in_the_result_and_compared(
    pair: tuple[str, str, Loads], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, _ = pair
    assert bench(ours, theirs, "--rounds", "1", "--engine-hardware", "2 x H200") == 0
    assert "GPUs: 2 x H200 (by --engine-hardware) -> unknown" in capsys.readouterr().out
    assert kept()["sglang-x/y"]["hardware"] == "2 x H200 (by --engine-hardware)"
    assert "hardware" not in kept()["unknown replica"]


@pytest.mark.parametrize("dead", ["ours", "theirs"])
@pytest.mark.parametrize("error", [LoadFailed("4 of 4 requests failed"), Stopped(2)])
def test_an_end_in_the_middle_keeps_the_rows_of_both(
    pair: tuple[str, str, Loads], capsys: pytest.CaptureFixture[str], dead: str, error: UserError
) -> None:
    ours, theirs, loads = pair
    gone = {"ours": ours, "theirs": theirs}[dead]
    loads.fails = lambda url, shape: error if url == gone and shape.round == 2 else None
    assert bench(ours, theirs) == error.exit_status
    message = capsys.readouterr().err.splitlines()
    assert [len(found["rows"]) for _, found in sorted(kept().items())] == ([3, 2] if dead == "ours" else [2, 2])
    assert len({found["failed"] for found in kept().values()}) == 1
    assert "kept in" in message[-2]
    if isinstance(error, LoadFailed):
        assert f"({gone}): 4 of 4 requests failed" in message[-1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--engine-key-file", "k"), "--engine-key-file is about another engine; name its address with --engine-url"),
        (("--engine-model", "m"), "--engine-model is about another engine"),
        (("--engine-hardware", "2 x H200"), "--engine-hardware is about another engine"),
        (("--rounds", "0"), "--rounds 0: must be 1 or more"),
        (("--seed", "-1"), "--seed -1: must be 0 to 4294967295"),
        (("--engine-url", "nonsense"), "--engine-url 'nonsense' is not an address"),
        (
            ("--engine-url", "http://127.0.0.1:9", "--engine-key-file", "nowhere"),
            "--engine-key-file nowhere: cannot read",
        ),
        (("--context", "no"), "--context: 'no' is neither a number of tokens nor `full`"),
    ],
)
def test_options_that_make_no_comparison_are_refused(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    assert main.main(["bench", *SMALL, *argv]) in (64, 78)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def body(text: bytes, status: int = 200) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

    return Handler


@pytest.mark.parametrize(
    ("handler", "argv", "status", "message"),
    [
        (
            engine("sglang", key="sesame"),
            (),
            69,
            "HTTP 401 (unauthorized); pass the file of the replica's key with --engine-key-file.",
        ),
        (engine("sglang", "a"), ("--engine-model", "b"), 64, "serves a."),
        (body(b"<html>"), (), 69, "name its server with --engine-url."),
        (body(b'{"data": []}'), (), 69, "name its server with --engine-url."),
        (body(b"{}", 429), (), 69, "HTTP 429"),
        (body(b"\xff\xfe", 500), (), 69, "HTTP 500"),
    ],
)
def test_what_the_other_engine_answers_wrongly_is_said_before_anything_is_measured(  # noqa: PLR0917
    pair: tuple[str, str, Loads],
    servers: Start,
    capsys: pytest.CaptureFixture[str],
    handler: type[BaseHTTPRequestHandler],
    argv: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    ours, _, loads = pair
    assert bench(ours, servers(handler), *argv) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (loads.calls, Path("qualification").exists()) == ([], False)


def test_the_other_engine_gets_its_own_key_alone(
    pair: tuple[str, str, Loads], servers: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _, loads = pair
    theirs = servers(engine("sglang", key="theirs"))
    Path("key").write_text("theirs\n")
    Path("key").chmod(0o600)
    monkeypatch.setenv("VLLM_API_KEY", "ours")
    loads.speeds[theirs] = [100.0, 100.0]
    assert bench(ours, theirs, "--engine-key-file", "key") == 0
    assert "theirs" not in json.dumps(kept()["sglang-m"]["replica"])


def test_a_full_context_is_the_smaller_one_and_has_to_be_told(
    pair: tuple[str, str, Loads], servers: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, _, loads = pair
    short, untold = servers(engine("sglang", context=1024)), servers(engine("sglang", context=None))
    loads.speeds[short] = [1.0, 1.0]
    assert bench(ours, short, "--context", "512", "full") == 0
    assert {shape.input for _, shape in loads.calls} == {256, 760}
    assert bench(ours, untold, "--context", "full") == 78
    assert f"{untold} does not say its context; write the number" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="the served context has 300 tokens; request shorter answers"):
        LoadMatrix(history=36, whole_context=True).within(300, "")


def test_rounds_become_means_and_their_range_is_the_noise() -> None:
    rows = [
        {"batch": 1, "input": 2, "output": 3, "requests": 4, "round": n, "x": 10.0 * n, "by_position": [n, n]}
        for n in (1, 2)
    ]
    [mean] = rounds.means(rows)
    assert (mean["x"], mean["by_position"], mean["requests"], mean["batch"]) == (15.0, [1.5, 1.5], 4, 1)
    assert rounds.means(rows[:1]) == rows[:1]
    assert rounds.means([rows[0] | {"note": "x"}, rows[1] | {"note": "y"}])[0]["note"] == "x"
    assert rounds.noise([10.0], [11.0]) is None
    assert rounds.noise([0.0, 1.0], [1.0]) is None
    assert rounds.noise([100.0, 90.0], [110.0, 99.0]) == pytest.approx((110 / 90 - 99 / 100) / 2)


def test_a_plot_has_one_point_for_each_batch() -> None:
    row = {"batch": 1, "input": 2, "output": 3, "output_tokens_per_second": 5.0, "tpot_p50": 1.0}
    drawn = plot.plot([{"subject": "x", "date": "2026-11-29", "rows": [row, row | {"batch": 2}, row | {"round": 2}]}])
    assert [len(curve.points) for curve in drawn.charts[0].curves] == [2]


def test_without_the_plan_of_one_that_of_the_other_is_no_difference() -> None:
    ours = {
        "settings": {"model": {"value": "m"}, "port": {"value": 1}},
        "choices": {"profile": "64k"},
        "versions": {"vllm": "1"},
    }
    other = {"versions": {"sglang": "2"}}
    assert dict(compare.differences({"replica": other, "weights": ""}, {"replica": ours, "weights": ""})) == {
        "plan": ["unknown", "known"], "version of sglang": ["2", "-"], "version of vllm": ["-", "1"],
    }  # fmt: skip


def test_a_result_without_speed_has_no_ratio() -> None:
    assert compare.summary({"rows": [{"output_tokens_per_second": [0, 1, None]}]}) == "No output speed can be compared."
