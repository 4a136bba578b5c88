"""What a drafter promises, restored caches, and what is kept of a run that is cut off."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dsv4_serve.demo.deepseek_v4 import Answer
from dsv4_serve.demo.v4_text import reaching_walk
from dsv4_serve.entrypoint.qualify.known import Question
from qualification.gpu import run_layouts, this_host, unfold
from qualification.gpu.layout_job import Job
from qualification.gpu.run_layouts import judged
from tests.support.http_servers import answer_json, http_servers


@pytest.mark.parametrize(
    ("drafter", "outcome", "right", "ok"),
    [
        ("good", "served", True, True), ("good", "served", False, False), ("good", "refused", False, False),
        ("holed", "refused", False, True), ("holed", "reported", False, False), ("removed", "served", True, False),
        ("scrambled", "reported", False, True), ("scrambled", "served", True, False),
    ],
)  # fmt: skip
def test_what_a_drafter_promises(drafter: str, outcome: str, right: bool, ok: bool) -> None:
    assert judged(Job("native", drafter, False, 1), outcome, right) == {"ok": ok}


def test_a_result_is_kept_as_soon_as_it_is_there_and_a_cut_record_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_host, "hardware", lambda: ("h200", "1 x NVIDIA H200"))
    monkeypatch.setattr(this_host, "versions", lambda: {"vllm": "0.32.0"})
    record, out = tmp_path / "record.jsonl", tmp_path / "results"
    options = argparse.Namespace(out=str(tmp_path), record=str(record), patches={"series": "0.32.0"})
    for job, result in (("native", "served"), ("acti", "skipped")):
        run_layouts.keep({"job": job, "tp": 1, "stock": False, "result": result}, options)
    with record.open("a") as file:
        file.write('{"file": "w4a16-h200')
    out.mkdir()
    [path] = unfold.unfold(record, out)
    assert path.name == "native-h200-tp1-vllm0.32.0.json"
    assert path.read_text() == (tmp_path / path.name).read_text()
    assert json.loads(path.read_text())["patches"] == {"series": "0.32.0"}


def test_a_server_that_ran_out_of_time_keeps_what_its_log_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("INFO starting\n")
    assert run_layouts.counted(log) == {}
    line = (
        "INFO SpecDecoding metrics: Mean acceptance length: 2.00, Accepted: {} tokens, Drafted: {} tokens, Per-position"
    )
    log.write_text("\n".join(line.format(*pair) for pair in ((168, 168), (72, 75))))
    assert run_layouts.counted(log) == {"accepted": 240, "drafted": 243, "acceptance": 0.9877, "backends": []}


def test_only_far_keys_tell_whether_a_restored_cache_is_right() -> None:
    walk = reaching_walk(512)
    assert walk.reach
    near, deep = (
        run_layouts.asked(Answer(walk.successors), None),
        run_layouts.asked(Answer(walk.successors), walk.reach),
    )
    assert len(deep) == len(near) + 3 * len(run_layouts.DEEP)
    decided = [one for one in deep if one.prompt[-1] in walk.reach.queries.values()]
    assert [len(one.prompt) for one in decided] == [length for length in run_layouts.DEEP for _ in range(3)]
    for one in decided:
        [key] = set(one.prompt) & set(walk.reach.keys)
        assert one.prompt.index(key) < len(one.prompt) - 128  # further back than the window
        assert one.answer == tuple(walk_from(walk.successors, key, len(one.answer)))
    assert not any(set(one.prompt) & {*walk.reach.keys, *walk.reach.queries.values()} for one in deep[: len(near)])


def walk_from(successors: list[int], token: int, count: int) -> list[int]:
    walked = list(itertools.accumulate(range(count), lambda at, _: successors[at], initial=token))
    return walked[1:]


def test_caches_are_restored_after_the_gpu_has_none() -> None:
    emptied, asked = itertools.count(), itertools.count(1)
    hits = [0]

    class Engine(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v1/models":
                return answer_json(self, {"data": [{"id": "m"}]})
            text = f"vllm:external_prefix_cache_hits_total {hits[0]}\nvllm:kv_offload_store_bytes_total 7e3\n"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())
            return None

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/reset_prefix_cache":  # the first time something is still being copied
                return answer_json(self, {"success": next(emptied) > 0})
            hits[0] += 256
            return answer_json(self, {"choices": [{"token_ids": [1, 2, 4 if next(asked) == 2 else 3]}]})

    question = Question(tuple(range(10, 300)), (1, 2, 3))
    with http_servers() as start:
        port = int(start(Engine).rpartition(":")[2])
        found = run_layouts.restored(port, [question, question], time.monotonic() + 60)
    assert next(emptied) == 2
    assert (found["right"], found["asked"], found["host"], found["stored"]) == (5, 6, 512, 7000)
