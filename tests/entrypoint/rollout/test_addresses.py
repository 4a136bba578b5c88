"""A name with several addresses: each is asked, with the name in its certificate, and silent ones at the same time."""

from __future__ import annotations

import itertools
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client import http
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.rollout import replicas
from dsv4_serve.entrypoint.rollout.addresses import CanaryAddress, at_once, resolved
from dsv4_serve.entrypoint.rollout.replicas import ReplicaSet
from tests.support.http_servers import http_servers
from tests.support.program import need

NAME = "replica.test"


@pytest.fixture
def _dns(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **_how: object) -> list[tuple[object, ...]]:
        if host != NAME:
            raise socket.gaierror
        return [(0, 0, 0, "", (one, port)) for one in ("10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("_dns")
@pytest.mark.parametrize(("url", "port"), [(f"https://{NAME}", 443), (f"https://{NAME}:8", 8), (f"http://{NAME}", 80)])
def test_each_address_of_a_name_is_one(url: str, port: int) -> None:
    scheme = url.partition(":")[0]
    hosts = ("10.0.0.1", "10.0.0.2", "[fd00::1]")
    assert resolved(url) == [CanaryAddress(f"{scheme}://{host}:{port}", NAME) for host in hosts]
    assert resolved(f"{scheme}://no-such-name.test") == []


def test_an_address_stands_for_itself() -> None:
    assert resolved("https://127.0.0.1:8000") == [CanaryAddress("https://127.0.0.1:8000")]
    assert resolved("http://127.0.0.1/a/path") == [CanaryAddress("http://127.0.0.1:80/a/path")]


def test_an_address_has_to_show_the_certificate_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate]
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-days", "2"]
    subprocess.run([need("openssl", "OPENSSL"), "req", "-x509", *words, *subject], check=True, capture_output=True)
    monkeypatch.setattr(http, "_trusted", lambda: ssl.create_default_context(cafile=certificate))
    hosts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["host"])
            self.send_response(200)
            self.end_headers()

    with http_servers(certificate, key) as start:
        url = start(Handler)
        assert http.get_accepted(url, None, name=NAME).status_code == 200
        assert hosts == [f"{NAME}:{url.rpartition(':')[2]}"]
        for other in ("", "another.test"):
            with pytest.raises(Unreachable, match="certificate"):
                http.get_accepted(url, None, name=other)


def test_silent_addresses_are_waited_for_at_the_same_time() -> None:
    together = threading.Barrier(200)
    found = at_once(lambda _address: together.wait(120) >= 0, [CanaryAddress(f"http://{n}") for n in range(200)])
    assert list(found.values()) == [True] * 200


def test_many_silent_replicas_do_not_outlast_the_share_at_the_balancer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, replicas.SECONDS / 3)
    monkeypatch.setattr(http, "get_accepted", lambda *_words, **_name: (_ for _ in ()).throw(Unreachable("silent")))
    side = ReplicaSet(["http://a"], 8001, None, lambda _url: [CanaryAddress(f"http://{n}") for n in range(9)])
    read = ReplicaSet(side.urls, 8001, None, side.resolve, lambda: next(clock)).read()
    assert (
        sorted(map(str, read.values())) == ["it was not asked, as too many others do not answer"] * 6 + ["silent"] * 3
    )


def test_a_health_server_has_no_tls() -> None:
    side = ReplicaSet([], 8001, None, resolved)
    assert side.health(CanaryAddress("https://[fd00::1]:8000", NAME)) == "http://[fd00::1]:8001"
