"""Clients without a key that open connections and leave them idle, and key files that an editor has touched."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.pair import Pair
from tests.deploy.test_balancer import ports
from tests.support.balancer import KEY, Balancer, Names, balancer
from tests.support.patience import slowness, until

HEAD_SECONDS = 5.0  # `timeout http-request` as shipped
SOURCES = [f"127.0.1.{number}" for number in range(1, 11)]


@contextlib.contextmanager
def flood(front: Balancer, sources: list[str], each: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open so many connections from every address, and send the start of a request on each."""
    opened: list[socket.socket] = []
    try:
        for source in sources:
            for _ in range(each):
                connection = socket.socket()
                opened.append(connection)
                connection.settimeout(2)
                connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                connection.bind((source, 0))
                with contextlib.suppress(OSError):
                    connection.connect(("127.0.0.1", front.port))
                    connection.sendall(first)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def status_answers(front: Balancer) -> float:
    """Return the seconds that both routes of the status port take."""
    began = time.monotonic()
    for path in ("/readyz", "/metrics"):
        address = f"http://127.0.0.1:{front.status_port}{path}"
        assert httpx.get(address, timeout=3 * slowness(), trust_env=False).status_code == 200
    return time.monotonic() - began


def ask(front: Balancer, source: str = "127.0.0.9", timeout: float = 5.0) -> int:
    """Return the status of a request with the key from an address of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=timeout, source_address=(source, 0))
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        return connection.getresponse().status
    finally:
        connection.close()


def connected(front: Balancer) -> int:
    found = re.search(r"CurrConns: (\d+)", front.tell("show info"))
    assert found
    return int(found[1])


@pytest.fixture
def narrow(pair: Pair, tmp_path: Path, binary: str) -> Iterator[Balancer]:
    """A balancer of 400 connections, 100 for each address, before the pair."""
    limits = {"BALANCER_MAXCONN": "400", "BALANCER_SOURCE_MAXCONN": "100"}
    with balancer(tmp_path, pair.names, binary=binary, **ports(pair), **limits) as front:
        assert until(lambda: front.up() == {"127.0.0.2", "127.0.0.3"}, 20)
        yield front


@pytest.mark.slow
def test_10000_idle_connections_leave_the_status_port_answering(pair: Pair, tmp_path: Path, binary: str) -> None:
    """As shipped: 4,096 connections to the API, from ten addresses that open 1,000 each."""
    with balancer(tmp_path, pair.names, binary=binary, **ports(pair)) as front:
        assert until(lambda: front.up() == {"127.0.0.2", "127.0.0.3"}, 20)
        with flood(front, SOURCES, 1000) as opened:
            assert len(opened) == 10_000
            assert status_answers(front) < 3 * slowness()
            # what was waiting for room is closed in its turn, and the API answers again
            assert ask(front, timeout=6 * HEAD_SECONDS * slowness()) == 200


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("first", [b"", b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-"], ids=["idle", "half a head"])
def test_one_address_cannot_take_the_room_of_the_others(narrow: Balancer, first: bytes) -> None:
    with flood(narrow, SOURCES[:1], 1000, first):
        began = time.monotonic()
        assert ask(narrow, timeout=6 * HEAD_SECONDS * slowness()) == 200
        assert time.monotonic() - began < (HEAD_SECONDS - 1) * slowness()
        assert connected(narrow) < 200  # nor was the room made by the end of idle connections
        status_answers(narrow)
    assert "127.0.1.1" not in {line.split(":")[0] for line in narrow.tell("show table sources").splitlines()}


@pytest.mark.process
@pytest.mark.slow
def test_an_api_that_is_full_leaves_the_status_port_answering_and_is_free_again_soon(narrow: Balancer) -> None:
    with flood(narrow, SOURCES, 60):
        assert connected(narrow) <= 410
        status_answers(narrow)
        assert ask(narrow, timeout=6 * HEAD_SECONDS * slowness()) == 200


@pytest.mark.process
@pytest.mark.slow
def test_an_http2_connection_that_asks_for_nothing_is_closed(narrow: Balancer) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
    with flood(narrow, SOURCES[:1], 1, preface) as (connection,):
        connection.settimeout(4 * HEAD_SECONDS * slowness())
        began = time.monotonic()
        while connection.recv(4096):
            pass
        assert time.monotonic() - began < 4 * HEAD_SECONDS * slowness()


def test_a_query_string_does_not_reach_the_log(narrow: Balancer) -> None:
    for path in ("/v1/models?api_key=geheim", "http://a/v1/models?q=geheim", "/nothing?geheim"):
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=10 * slowness()) as connection:
            head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            while connection.recv(65536):
                pass
    assert until(lambda: narrow.log.read_text().count('"GET ') == 3, 10)
    assert '"GET /v1/models HTTP/1.1"' in narrow.log.read_text()
    assert "geheim" not in narrow.log.read_text()
    assert KEY not in narrow.log.read_text()


@pytest.mark.parametrize(
    "content",
    [f"{KEY}", f"{KEY}\n", f"{KEY} \n", f"{KEY}\t\r\n", f"\ufeff{KEY}\n", f"\ufeff{KEY} \r\n", f"\n{KEY}\n\n"],
)
def test_a_key_file_is_read_as_the_replicas_read_it(binary: str, tmp_path: Path, content: str) -> None:
    from dsv4_serve.entrypoint.api_key import key_in

    file = tmp_path / "key-as-written"
    file.write_bytes(content.encode())
    assert key_in(str(file), "test") == KEY
    with balancer(tmp_path, Names(), binary=binary, API_KEY_FILE=str(file)) as front:
        for given, status in ((KEY, 503), (f"{KEY}x", 401), (KEY[:-1], 401), ("", 401)):
            headers = {b"Authorization": f"Bearer {given}".strip().encode()}
            assert httpx.get(f"{front.url}/v1/models", headers=headers, trust_env=False).status_code == status, given
