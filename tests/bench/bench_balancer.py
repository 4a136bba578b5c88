"""
What the balancer adds to a request: 1 ms at the median is the budget. Run with `make bench`, on a machine with haproxy.

The replica answers at once and does nothing else, so that the difference is the balancer's. Requests alternate between
it and the balancer, on kept-alive connections, as clients hold them.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.support.balancer import KEY, Balancer, Names, balancer, free_port
from tests.support.program import need

REQUESTS = 1000
BUDGET = 0.001
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SMALL = json.dumps({"prompt": "Once", "max_tokens": 1}).encode()
CASES = {
    "no session": (SMALL, {}),
    "session in the header": (SMALL, {"X-Session-ID": "a session"}),
    "session after 60 kB of body": (json.dumps({"prompt": "x" * 60_000, "user": "a user"}).encode(), {}),
}


@contextmanager
def replica() -> Iterator[int]:
    """A server that reads a request and answers; its port."""
    port = free_port()
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    loop.run_until_complete(asyncio.start_server(serve, "127.0.0.2", port))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(loop.stop)


def timed(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> float:
    began = time.perf_counter()
    connection.request("POST", "/v1/completions", body, headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return time.perf_counter() - began


def until_up(front: Balancer) -> None:
    ends = time.monotonic() + 10
    while not (front.up() and front.up("sessions")):
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize("case", CASES)
def test_the_balancer_adds_less_than_its_budget(
    benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    binary = need("haproxy", "HAPROXY")
    body, headers = CASES[case]
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
    names = Names()
    names.running.append("127.0.0.2")
    direct: list[float] = []
    through: list[float] = []
    with replica() as port:
        ports = {"REPLICA_PORT": str(port), "REPLICA_HEALTH_PORT": str(port)}
        with balancer(tmp_path, names, binary=binary, **ports) as front:
            until_up(front)
            to_replica = http.client.HTTPConnection("127.0.0.2", port)
            to_balancer = http.client.HTTPConnection("127.0.0.1", front.port)

            def once() -> None:
                direct.append(timed(to_replica, body, headers))
                through.append(timed(to_balancer, body, headers))

            benchmark.pedantic(once, rounds=REQUESTS)
    added = statistics.median(through) - statistics.median(direct)
    with capsys.disabled():
        p99 = [statistics.quantiles(took, n=100)[98] * 1e3 for took in (direct, through)]
        print(
            f"\n{case}: p50 {statistics.median(direct) * 1e3:.2f} ms direct, {statistics.median(through) * 1e3:.2f} ms"
            f" through the balancer (+{added * 1e3:.2f}); p99 {p99[0]:.2f} and {p99[1]:.2f} ms"
        )
    assert added <= BUDGET
