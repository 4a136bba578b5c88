"""Short prompts beside a long one, asked of a server that reads one prompt at a time."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from qualification.gpu import beside
from tests.support.http_servers import http_servers


def engine(seconds: float, *, turns: bool, answer: bytes = b'data: {"choices": []}') -> type[BaseHTTPRequestHandler]:
    """A server whose long prompts take so long; without turns, the others wait meanwhile."""
    reading = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if len(body["prompt"]) > beside.SHORT:
                with reading:
                    time.sleep(seconds)
            elif not turns:
                with reading:
                    pass
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer + b"\n\ndata: [DONE]\n\n")

    return Handler


def test_a_short_prompt_that_waits_for_the_long_one_is_seen() -> None:
    with http_servers() as start:
        found = asyncio.run(beside.measure(start(engine(2, turns=False)), "m", 1000, 100))
    assert found["long_alone"] >= 2
    assert found["short_beside"][0] > 0.2  # of the 1.5 s that were left
    assert found["long_beside"] >= 2


def test_short_prompts_that_get_their_turn_are_many() -> None:
    with http_servers() as start:
        found = asyncio.run(beside.measure(start(engine(2, turns=True)), "m", 1000, 100))
    assert found["short_beside_p50"] <= max(found["short_beside"])
    assert len(found["short_alone"]) == 3


@pytest.mark.parametrize("answer", [b'data: {"error": {"message": "too long"}}', b""])
def test_an_answer_without_a_token_is_an_error(answer: bytes) -> None:
    with http_servers() as start, pytest.raises(ValueError, match="too long|without a token"):
        asyncio.run(beside.measure(start(engine(0, turns=True, answer=answer)), "m", 1000, 100))
