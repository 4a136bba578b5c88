"""Conversations that come back, asked of a server whose GPU holds few of them and whose host memory may hold all."""

from __future__ import annotations

import asyncio
import json
from http.server import BaseHTTPRequestHandler

import pytest

from qualification.gpu import returning
from tests.support.http_servers import http_servers

BLOCK = 16


def engine(*, gpu: int, host: bool) -> type[BaseHTTPRequestHandler]:
    """Return a server that keeps the histories of the last `gpu` conversations, and with host memory all others too."""
    kept: list[tuple[int, ...]] = []
    stored: set[tuple[int, ...]] = set()
    counted = dict.fromkeys(returning.COUNTERS, 0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = [f'{name}{{engine="0"}} {counted[ours]:.1f}' for ours, name in returning.COUNTERS.items()]
            self.answer("\n".join(lines))

        def do_POST(self) -> None:
            prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
            history = tuple(prompt[:BLOCK])  # the block by which a conversation is known
            if history in kept:
                counted["gpu"] += BLOCK
                kept.remove(history)
            elif history in stored:
                counted["host"] += BLOCK
                counted["restored"] += BLOCK * 4
            kept.append(history)
            del kept[:-gpu]
            if host and history not in stored:
                stored.add(history)
                counted["stored"] += BLOCK * 4
            self.answer('data: {"choices": []}\n\n' * 2 + "data: [DONE]\n\n")

        def answer(self, text: str) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler


@pytest.mark.parametrize(("host", "restored", "stored"), [(True, BLOCK, 4 * BLOCK), (False, 0, 0)])
def test_a_history_that_the_gpu_dropped_comes_from_host_memory_or_is_read(
    monkeypatch: pytest.MonkeyPatch, host: bool, restored: int, stored: int
) -> None:
    monkeypatch.setattr(returning, "PAUSE", 0)
    with http_servers() as start:
        found = asyncio.run(returning.measure(start(engine(gpu=2, host=host)), "m", 40, 3, 100))
    turns = found["turns"]
    assert [turn["turn"] for turn in turns] == ["read"] * 3 + ["back"] * 3 + ["again"]
    assert [turn["gpu"] for turn in turns] == [0] * 6 + [BLOCK]
    assert [turn["host"] for turn in turns] == [0] * 3 + [restored] * 3 + [0]
    assert [turn["stored"] for turn in turns] == [stored] * 3 + [0] * 4
    assert found["p50"].keys() == {"read", "gpu"} | ({"host"} if host else set())
    assert (found["tokens"], found["conversations"]) == (40, 3)
    assert all(0 <= turn["ms_a_token"] < turn["seconds"] * 1000 for turn in turns)


def test_a_counter_that_is_not_there_is_zero_and_those_of_several_engines_are_added() -> None:
    metrics = """# HELP vllm:prefix_cache_hits_total hits
vllm:prefix_cache_hits_total{engine="0"} 2.0
vllm:prefix_cache_hits_total{engine="1"} 3.0
vllm:prefix_cache_hits_created{engine="0"} 9.0
vllm:kv_offload_store_bytes_total 1.5e9
vllm:kv_offload_store_time_total 0.25"""
    found = returning.read(metrics)
    assert {name: value for name, value in found.items() if value} == {"gpu": 5, "stored": 1.5e9, "store_seconds": 0.25}
    assert found.keys() == returning.COUNTERS.keys()


def test_medians_are_of_turns_whose_history_came_from_one_place() -> None:
    turns = [{"seconds": seconds, "gpu": gpu, "host": host} for seconds, gpu, host in ((6, 0, 0), (1, 9, 0), (3, 0, 9))]
    assert returning.medians([*turns, {"seconds": 5, "gpu": 0, "host": 9}]) == {"read": 6, "gpu": 1, "host": 4}
