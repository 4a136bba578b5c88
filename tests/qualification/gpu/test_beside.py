"""Short prompts beside a long one, asked of a server that reads one prompt at a time, or several in turns."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from qualification.gpu import beside
from tests.support.http_servers import http_servers
from tests.support.patience import slowness

SECONDS = 0.3


def engine(*, turns: bool, answer: bytes = b'data: {"choices": []}') -> type[BaseHTTPRequestHandler]:
    """
    A server that reads the second long prompt until short ones wait for it, and then for SECONDS.

    With turns it reads it until three short ones have had their answer.
    """
    reading, waits, longs, shorts = threading.Lock(), threading.Event(), itertools.count(1), itertools.count(1)

    def read_long() -> None:
        with reading:
            if next(longs) == 2:
                waits.wait(60 * slowness())
            time.sleep(SECONDS)

    def read_short() -> None:
        if reading.locked() and (not turns or next(shorts) == 3):
            waits.set()
        if not turns:
            with reading:
                pass

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (read_long if len(body["prompt"]) > beside.SHORT else read_short)()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer + b"\n\ndata: [DONE]\n\n")

    return Handler


def test_a_short_prompt_that_waits_for_the_long_one_is_seen() -> None:
    with http_servers() as start:
        found = asyncio.run(beside.measure(start(engine(turns=False)), "m", 1000, 100))
    assert len(found["short_alone"]) == 3
    assert min(found["long_alone"], found["long_beside"], max(found["short_beside"])) >= SECONDS


def test_short_prompts_that_get_their_turn_are_many() -> None:
    with http_servers() as start:
        found = asyncio.run(beside.measure(start(engine(turns=True)), "m", 1000, 100))
    assert len(found["short_beside"]) >= 3
    assert found["short_beside_p50"] == round(statistics.median(found["short_beside"]), 3)


@pytest.mark.parametrize("answer", [b'data: {"error": {"message": "too long"}}', b""])
def test_an_answer_without_a_token_is_an_error(answer: bytes) -> None:
    with http_servers() as start, pytest.raises(ValueError, match="too long|without a token"):
        asyncio.run(beside.measure(start(engine(turns=True, answer=answer)), "m", 1000, 100))
