"""How a few steps of SGLang are profiled: asked for while it decodes, read when the trace is whole."""

from __future__ import annotations

import gzip
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from dsv4_serve.entrypoint.bench.load import Tokenizer
from qualification.gpu import trace

KERNEL = {"ph": "X", "cat": "kernel", "name": "moe_gemm", "ts": 0, "dur": 1000.0, "args": {}}


class Where:
    url = "http://engine"

    def models(self) -> list[Any]:
        return [type("Model", (), {"id": "m"})()]


class Running:
    endpoint = Where()


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """An engine that answers for as long as it is profiled; it writes half a trace, then the whole one."""
    seen: list[Any] = []
    asked = threading.Event()

    def run(shape: Any, *_: Any) -> None:
        seen.append(("load", shape.batch, shape.input))
        assert asked.wait(30)
        seen.append("answered")

    def post(url: str, json: dict[str, Any] | None = None, **_: Any) -> httpx.Response:
        if json:  # SGLang's
            seen.append((url, json["num_steps"], json["activities"]))
            threading.Thread(target=written, args=(Path(json["output_dir"]),)).start()
        else:
            seen.append(url)
            if url.endswith("stop_profile"):
                written(tmp_path / "trace")
        asked.set()
        return httpx.Response(200, request=httpx.Request("POST", url))

    def written(folder: Path) -> None:
        body = gzip.compress(json.dumps({"traceEvents": [KERNEL]}).encode())
        for rank in (1, 0):
            file = folder / f"1-TP-{rank}.trace.json.gz"
            file.write_bytes(body[:20])
            time.sleep(0.2)
            file.write_bytes(body)

    monkeypatch.setattr(trace, "HEAD_START", 0.1)
    monkeypatch.setattr(trace.load, "run", run)
    monkeypatch.setattr(trace.httpx, "post", post)
    return seen


def test_steps_are_profiled_while_it_decodes(events: list[Any], tmp_path: Path) -> None:
    family, *_ = trace.steps_of_sglang(Running(), 16, Tokenizer("t"), {}, tmp_path / "trace")  # type: ignore[arg-type]
    assert events == [("load", 16, 64), ("http://engine/start_profile", trace.STEPS, ["GPU"]), "answered"]
    assert (family["name"], family["ms"]) == ("experts", 1.0)


@pytest.mark.parametrize(("tokens", "chunks"), [(100, 1), (8192, 1), (8193, 2), (16000, 2)])
def test_sglang_is_asked_for_a_profile_of_as_many_steps_as_a_prompt_has_chunks(
    events: list[Any], tmp_path: Path, tokens: int, chunks: int
) -> None:
    family, *_ = trace.prompt_of_sglang(Running(), tokens, Tokenizer("t"), {}, tmp_path / "trace")  # type: ignore[arg-type]
    assert events == [("http://engine/start_profile", chunks, ["GPU"]), ("load", 1, tokens), "answered"]
    assert (family["name"], family["ms"]) == ("experts", 1.0)


def test_vllm_is_profiled_from_before_a_prompt_to_its_end(events: list[Any], tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir()
    family, *_ = trace.prompt(Running(), 16000, Tokenizer("t"), {}, tmp_path / "trace")  # type: ignore[arg-type]
    started, stopped = "http://engine/start_profile", "http://engine/stop_profile"
    assert events == [started, ("load", 1, 16000), "answered", stopped]
    assert (family["name"], family["ms"]) == ("experts", 1.0)


def test_half_a_trace_is_not_whole(tmp_path: Path) -> None:
    body = gzip.compress(b'{"traceEvents": []}')
    file = tmp_path / "x.json.gz"
    file.write_bytes(body[:-9])
    assert not trace.whole(file)
    file.write_bytes(body)
    assert trace.whole(file)


def test_the_first_rank_is_taken_by_its_name() -> None:
    names = ["a_rank0.json.gz", "b-rank-0.json.gz", "1-TP-0.trace.json.gz", "1-TP-1.trace.json.gz", "rank10.json.gz"]
    assert [bool(trace.FIRST.search(name)) for name in names] == [True, True, True, False, False]


def test_no_trace_is_said(events: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trace, "WRITING", 0.2)
    monkeypatch.setattr(trace, "whole", lambda _: False)
    with pytest.raises(FileNotFoundError, match="no trace in"):
        trace.steps_of_sglang(Running(), 1, Tokenizer("t"), {}, tmp_path / "trace")  # type: ignore[arg-type]
