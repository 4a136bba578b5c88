"""An engine over real HTTP that walks as the small checkpoint does, sound but for the faults that it is given."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dsv4_serve.demo.deepseek_v4 import Answer
from dsv4_serve.demo.v4_text import reaching_walk
from tests.support.patience import slowness

VOCAB = 128
WALK = reaching_walk(VOCAB)
assert WALK.reach
REACH, ANSWER = WALK.reach, Answer(WALK.successors)
WINDOW = 128


def sound(prompt: Sequence[int], running: int) -> int:
    """The token that decides the answer: the last one, or the far key for the query."""
    del running
    keys = [token for token in prompt if token in REACH.keys]
    return keys[0] if prompt[-1] in REACH.queries.values() and keys else prompt[-1]


def changed_under_load(prompt: Sequence[int], running: int) -> int:
    """With several requests at once, one answers as if another token had been the last."""
    return ANSWER.perm[prompt[-1]] if running > 1 else sound(prompt, running)


def short_sighted(prompt: Sequence[int], running: int) -> int:
    """What is further back than a window is not seen."""
    near = prompt[-WINDOW:]
    return sound(near, running) if prompt[-1] not in REACH.queries.values() or {*near} & {*REACH.keys} else 2


class Engine(ThreadingHTTPServer):
    """`decides` is the fault, `accepts` the share of drafts that are accepted; `shift` moves logprobs under load."""

    daemon_threads = True

    def __init__(self, decides: Callable[[Sequence[int], int], int], accepts: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.decides, self.accepts, self.shift = decides, accepts, shift
        self.lock, self.running, self.drafted = threading.Lock(), 0, 0
        self.together = threading.Barrier(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.running += 1
        try:
            self.together.wait(5 * slowness())
            running = self.running
            tokens = ANSWER.continuation(self.decides(body["prompt"], running), body["max_tokens"])
            self.together.wait(5 * slowness())
        finally:
            with self.lock:
                self.running -= 1
                self.drafted += body["max_tokens"]
        logprobs = [-0.25 - (self.shift if running > 1 else 0.0)] * len(tokens)
        choice = {"text": "", "token_ids": tokens, "finish_reason": "length", "logprobs": {"token_logprobs": logprobs}}
        return {"choices": [choice], "usage": {"prompt_tokens": len(body["prompt"])}}

    def metrics(self) -> str:
        accepted = int(self.drafted * self.accepts)
        return f"vllm:spec_decode_num_draft_tokens_total {self.drafted}\nvllm:spec_decode_num_accepted_tokens_total {accepted}\n"


class _Handler(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        models = json.dumps({"data": [{"id": "small"}]})
        self._send(models if self.path == "/v1/models" else self.server.metrics())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(json.dumps(self.server.complete(body)))

    def _send(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def engine(*given: Any, **named: Any) -> Iterator[Engine]:
    """Serve during a block."""
    server = Engine(*given, **named)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
