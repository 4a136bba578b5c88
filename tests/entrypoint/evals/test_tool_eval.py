"""`dsv4 eval tools` against a server over real HTTP: perfect, at fault in streams, and gone half way."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.errors import UsageError
from dsv4_serve.entrypoint.evals import tool_eval, tool_scenarios, tool_text
from dsv4_serve.entrypoint.evals.served import ServedReplica
from dsv4_serve.entrypoint.evals.task_request import ToolEvalRequest
from dsv4_serve.entrypoint.smoke.structure import NO_PARSER
from tests.entrypoint.evals.perfect import perfect

pytestmark = [pytest.mark.process, pytest.mark.slow]

SCENARIOS = {one.ask: one for one in tool_scenarios.read()[1]}
SERVED = ServedReplica("deepseek-v4-flash", 65536, "w4a16")
REPLICA = {"settings": {"speculative-config.num_speculative_tokens": {"value": 3, "origin": "test"}}}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, faults, most):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.most, self.bodies = faults, most, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.send(200, {"data": [{"id": "deepseek-v4-flash", "max_model_len": 65536}]})

    def do_POST(self):
        self.reply()

    def reply(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if len(self.server.bodies) > self.server.most:
            self.connection.close()
            return None
        if "no-parser" in self.server.faults:
            return self.send(400, {"error": {"message": f"it needs {NO_PARSER}"}})
        if "refuses-streams" in self.server.faults and body.get("stream"):
            return self.send(500, {"error": {"message": "IndexError"}})
        scenario = SCENARIOS[body["messages"][0]["content"]]
        reply = perfect(scenario)[sum(one["role"] == "assistant" for one in body["messages"])]
        message = {"content": reply.content, "tool_calls": reply.tool_calls}
        usage = {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}
        if not body.get("stream"):
            return self.send(200, {"choices": [{"message": message, "finish_reason": reply.finish}], **usage})
        deltas = [{"index": n, **call} for n, call in enumerate(reply.tool_calls)]
        leak = "</｜DSML｜" if "leaks" in self.server.faults and deltas else ""
        delta = {"content": reply.content + leak, "tool_calls": deltas}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for chunk in ({"choices": [{"delta": delta, "finish_reason": reply.finish}]}, {"choices": [], **usage}):
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        return self.wfile.write(b"data: [DONE]\n\n")

    def send(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_args):
        return


@contextmanager
def serving(*faults, most=10_000):
    server = Server(faults, most)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def request(out: Path, **changes) -> ToolEvalRequest:
    whole = ToolEvalRequest(
        thinking="chat", limit=None, max_tokens=None, temperature=0.0, concurrency=4, out=out, resume=False,
        dry_run=False, rounds=2,
    )  # fmt: skip
    return replace(whole, **changes)


def counts(result):
    return [(score["correct"], score["total"]) for score in result["scores"]]


def test_a_perfect_model_scores_in_full_and_the_result_is_kept(tmp_path):
    with serving() as server:
        result = tool_eval.evaluate(Endpoint(server.url), replace(SERVED, replica=REPLICA), request(tmp_path))
    assert counts(result) == [(2 * len(SCENARIOS), 2 * len(SCENARIOS))] * 2
    assert result["wrong"] == []
    assert (result["drafts"], result["by-kind"]["parallel"]["total"]) == (3, 16)
    assert json.loads(Path(result["file"]).read_text())["kind"] == "eval"
    assert len((tmp_path / result["samples"]).read_text().splitlines()) == 2 * len(SCENARIOS)
    first_turns = [body for body in server.bodies if len(body["messages"]) == 1]
    assert sum(bool(body.get("stream")) for body in first_turns) == len(SCENARIOS)
    assert all(body["chat_template_kwargs"] == {"thinking": False} for body in first_turns)
    assert "no protocol fault" in tool_text.text(result)
    assert "3 draft tokens" in tool_text.text(result)


@pytest.mark.parametrize("fault", ["leaks", "refuses-streams"])
def test_a_fault_of_the_protocol_is_told_apart_from_one_of_the_model(tmp_path, fault):
    with serving(fault) as server:
        result = tool_eval.evaluate(Endpoint(server.url), SERVED, request(tmp_path, limit=20))
    assert counts(result)[0] == (20, 40)
    assert {one["streamed"] for one in result["wrong"]} == {True}
    assert "protocol faults: 20" in tool_text.text(result)
    names = {one.name: one.kind for one in list(SCENARIOS.values())[:20]}
    root = ET.fromstring(tool_text.junit(result, names))
    assert (root.get("tests"), root.get("errors"), root.get("failures")) == ("20", "20", "0")


def test_a_run_that_broke_off_asks_only_what_is_missing(tmp_path):
    with serving(most=30) as server, pytest.raises(Unreachable):
        tool_eval.evaluate(Endpoint(server.url), SERVED, request(tmp_path, limit=20))
    (answers,) = tmp_path.glob("eval/*/answers.jsonl")
    known = len(answers.read_text().splitlines()) - 1
    assert known > 10
    answers.write_text(answers.read_text() + '{"half a li')
    with serving() as server:
        result = tool_eval.evaluate(Endpoint(server.url), SERVED, request(tmp_path, limit=20, resume=True))
        turns = sum(len(perfect(one)) for one in list(SCENARIOS.values())[:20])
    assert len(server.bodies) == 2 * turns - known
    assert counts(result)[1] == (40, 40)


def test_a_dry_run_asks_nothing_and_no_parser_is_said(tmp_path):
    with serving("no-parser") as server:
        assert tool_eval.evaluate(Endpoint(server.url), SERVED, request(tmp_path, dry_run=True)) == {}
        assert server.bodies == []
        with pytest.raises(UsageError, match="parses no tool calls; serve with --enable-auto-tool-choice"):
            tool_eval.evaluate(Endpoint(server.url), SERVED, request(tmp_path))
    with pytest.raises(UsageError, match="reserves 8192 tokens"):
        tool_eval.evaluate(Endpoint("http://127.0.0.1:9"), replace(SERVED, context=4096), request(tmp_path))


def test_the_command_exits_by_the_protocol_and_writes_junit(dsv4, tmp_path):
    with serving("leaks") as server:
        argv = ["--url", server.url, "--health", "none", "--out", str(tmp_path), "--limit", "3"]
        done = dsv4("eval", "tools", *argv, "--junit", str(tmp_path / "j.xml"))
        once = dsv4("eval", "tools", *argv, "--rounds", "1")
    assert done.returncode == 1, done.stderr
    assert "tools, chat, an unknown model, drafts unknown: 6 in 2 rounds" in done.stdout
    assert ET.parse(tmp_path / "j.xml").getroot().get("errors") == "3"
    assert once.returncode == 0, once.stderr
    refused = dsv4("eval", "gsm8k", "--junit", "j.xml")
    assert "--junit is for the task tools" in refused.stderr
