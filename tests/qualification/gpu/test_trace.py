"""How a few steps, or one prompt, are profiled: what the engine is asked, when, and what is read of its traces."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from dsv4_serve.entrypoint.bench.load import Tokenizer
from qualification.gpu import decoding, trace
from tests.support.http_servers import http_servers

KERNEL = {"ph": "X", "cat": "kernel", "name": "moe_gemm", "ts": 0, "dur": 1000.0, "args": {}}
Start = Callable[[type[BaseHTTPRequestHandler]], str]


class Engine:
    """What is asked of a server that decodes until its clients go, and writes half a trace before the whole one."""

    def __init__(self, folder: Path, late: float = 0.0, longest: int = 1_000_000) -> None:
        self.folder, self.late, self.longest = folder, late, longest
        self.asked: list[Any] = []
        self.bounds: list[tuple[int | None, int | None]] = []
        self.decoding, self.status = 0, 200
        self.lock = threading.Lock()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
                if self.path == "/stop_profile":  # vLLM answers when its traces are written
                    engine.write()
                self.send_response(engine.status)
                self.end_headers()
                if self.path == "/v1/completions":
                    assert body["ignore_eos"]
                    assert body["max_tokens"] >= 1000  # none ends before the profile
                    self.decode(len(body["prompt"]))
                    return
                engine.asked.append((self.path, body.get("num_steps"), engine.decoding))
                engine.bounds.append((body.get("delay_iterations"), body.get("max_iterations")))
                if "num_steps" in body:  # SGLang does not wait
                    threading.Thread(target=engine.write).start()

            def decode(self, tokens: int) -> None:
                time.sleep(engine.late if engine.decoding else 0)
                with engine.lock:
                    engine.decoding += 1
                try:
                    for _ in range(engine.longest):
                        self.wfile.write(b'data: {"choices": []}\n\n')
                        self.wfile.flush()
                        time.sleep(0.01)
                except OSError:
                    engine.asked.append(("gone", tokens))

        return Handler

    def write(self) -> None:
        body = gzip.compress(json.dumps({"traceEvents": [KERNEL]}).encode())
        self.folder.mkdir(exist_ok=True)
        for rank in (1, 0):
            file = self.folder / f"1-TP-{rank}.trace.json.gz"
            file.write_bytes(body[:20])
            time.sleep(0.2)
            file.write_bytes(body)


class Where:
    def __init__(self, url: str) -> None:
        self.url = url

    def models(self) -> list[Any]:
        return [type("Model", (), {"id": "m"})()]


class Running:
    def __init__(self, url: str) -> None:
        self.endpoint = Where(url)


@pytest.fixture
def start() -> Iterator[Start]:
    with http_servers() as start:
        yield start


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A server, and a load whose prompt and answer it is told of."""
    made = Engine(tmp_path / "trace")
    monkeypatch.setattr(trace.load, "run", lambda shape, *_: made.asked.append(("load", shape.batch, shape.input)))
    return made


def profiled(found: list[dict[str, Any]]) -> tuple[str, float]:
    family, *_ = found
    return family["name"], family["ms"]


@pytest.mark.parametrize("requests", [1, 16])
def test_sglang_is_asked_when_all_requests_decode(engine: Engine, start: Start, requests: int) -> None:
    engine.late = 0.5
    running: Any = Running(start(engine.handler()))
    assert profiled(trace.steps_of_sglang(running, requests, Tokenizer("t"), {}, engine.folder)) == ("experts", 1.0)
    assert engine.asked[0] == ("/start_profile", trace.STEPS, requests)


def test_requests_are_ended_with_the_profile(engine: Engine, start: Start) -> None:
    running: Any = Running(start(engine.handler()))
    trace.steps_of_sglang(running, 4, Tokenizer("t"), {}, engine.folder)
    until = time.monotonic() + 20
    while engine.asked.count(("gone", decoding.PROMPT)) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert engine.asked.count(("gone", decoding.PROMPT)) == 4


def test_an_answer_that_ends_too_early_is_said(engine: Engine, start: Start) -> None:
    engine.longest, engine.late = 0, 0.0
    running: Any = Running(start(engine.handler()))
    with pytest.raises(ValueError, match="an answer ended before each of 3 requests had a token"):
        trace.steps_of_sglang(running, 3, Tokenizer("t"), {}, engine.folder)
    assert engine.asked == []


def test_a_refused_request_is_said_by_its_status(engine: Engine, start: Start) -> None:
    engine.status, engine.longest = 503, 0
    running: Any = Running(start(engine.handler()))
    with pytest.raises(httpx.HTTPStatusError, match="503"):
        trace.steps_of_sglang(running, 2, Tokenizer("t"), {}, engine.folder)
    assert engine.asked == []


@pytest.mark.parametrize(("tokens", "chunks"), [(100, 1), (8192, 1), (8193, 2), (16000, 2)])
def test_sglang_is_asked_for_a_profile_of_as_many_steps_as_a_prompt_has_chunks(
    engine: Engine, start: Start, tokens: int, chunks: int
) -> None:
    running: Any = Running(start(engine.handler()))
    assert profiled(trace.prompt_of_sglang(running, tokens, Tokenizer("t"), {}, engine.folder)) == ("experts", 1.0)
    assert engine.asked == [("/start_profile", chunks, 0), ("load", 1, tokens)]


def test_vllm_is_profiled_from_before_a_prompt_to_its_end(engine: Engine, start: Start) -> None:
    running: Any = Running(start(engine.handler()))
    assert profiled(trace.prompt(running, 16000, Tokenizer("t"), {}, engine.folder)) == ("experts", 1.0)
    assert engine.asked == [("/start_profile", None, 0), ("load", 1, 16000), ("/stop_profile", None, 0)]


def test_vllm_is_asked_for_steps_after_the_prompt_and_is_kept_busy_for_longer(
    engine: Engine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = list[trace.LoadShape]()
    monkeypatch.setattr(trace.load, "run", lambda shape, *_: shapes.append(shape))
    running: Any = Running(start(engine.handler()))
    assert profiled(trace.steps(running, 16, Tokenizer("t"), {}, engine.folder)) == ("experts", 1.0)
    assert [path for path, *_ in engine.asked] == ["/start_profile", "/stop_profile"]
    assert engine.bounds[0] == (trace.STEPS, trace.STEPS)
    (shape,) = shapes
    assert (shape.batch, shape.requests) == (16, 16)
    assert shape.output > sum(filter(None, engine.bounds[0]))


def test_the_first_rank_counts_though_another_trace_is_larger(tmp_path: Path) -> None:
    for rank, kernels in ((0, [KERNEL]), (1, [KERNEL | {"ts": 2000.0 * place} for place in range(900)])):
        body = gzip.compress(json.dumps({"traceEvents": kernels}).encode())
        (tmp_path / f"1-TP-{rank}.trace.json.gz").write_bytes(body)
    assert profiled(trace.summed("x", set(tmp_path.iterdir()))) == ("experts", 1.0)


def test_half_a_trace_is_not_whole(tmp_path: Path) -> None:
    body = gzip.compress(b'{"traceEvents": []}')
    file = tmp_path / "x.json.gz"
    for damaged in (body[:-9], b"", body[:12] + b"\xff" * 9 + body[21:], body[:-8] + bytes(8), gzip.compress(b"{")):
        file.write_bytes(damaged)
        assert not trace.whole(file), damaged
    file.write_bytes(body)
    assert trace.whole(file)


def test_the_first_rank_is_taken_by_its_name() -> None:
    names = ["a_rank0.json.gz", "b-rank-0.json.gz", "1-TP-0.trace.json.gz", "1-TP-1.trace.json.gz", "rank10.json.gz"]
    assert [bool(trace.FIRST.search(name)) for name in names] == [True, True, True, False, False]


def test_no_trace_is_said(engine: Engine, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "WRITING", 0.2)
    monkeypatch.setattr(trace, "whole", lambda _: False)
    running: Any = Running(start(engine.handler()))
    with pytest.raises(FileNotFoundError, match="no trace in"):
        trace.steps_of_sglang(running, 1, Tokenizer("t"), {}, engine.folder)
