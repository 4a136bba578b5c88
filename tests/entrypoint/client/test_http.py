"""Requests with httpx: a certificate that nobody vouches for is refused, and those that are trusted are read once."""

from __future__ import annotations

import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from dsv4_serve.entrypoint.client import http
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.client.vllm import VllmClient
from tests.support.client import with_client
from tests.support.http_servers import http_servers
from tests.support.program import need

pytestmark = pytest.mark.process


def test_trusted_certificates_are_read_once(answering, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[dict] = []
    made = httpx.create_ssl_context
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **options: read.append(options) or made(**options))
    http._trusted.cache_clear()
    url = answering(200, "sound")
    assert [http.get(url, None).text for _ in range(3)] == ["sound"] * 3
    assert with_client(url, VllmClient.metrics) == "sound"
    assert read == [], "plain HTTP needs none"
    for _ in range(3):
        with pytest.raises(Unreachable):
            http.get(url.replace("http:", "https:"), None)
    assert read == [{"trust_env": False}]


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    args = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1"]
    subprocess.run(
        [need("openssl", "OPENSSL"), "req", "-x509", "-subj", "/CN=localhost", *args], check=True, capture_output=True
    )
    with http_servers(certificate, key) as start:
        url = start(BaseHTTPRequestHandler).replace("127.0.0.1", "localhost")
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            http.get(url, None)
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            with_client(url, VllmClient.metrics)
