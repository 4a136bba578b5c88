"""The pages of a running replica in a support bundle: asked with its key, or left out with the reason."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client.errors import Refused
from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.plan import Plan
from dsv4_serve.entrypoint.support import parts
from tests.support.http_servers import http_servers


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer geheim" or self.path != "/metrics"
        body = b"dsv4_ready 1" if known else b"/metrics requires the header"
        self.send_response(503 if self.path == "/readyz" else 200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def sources(url: str, key: str) -> parts.Sources:
    return parts.Sources(lambda: Plan({}, {}, {}), dict, Machine, {}, Path("/none"), url, None, lambda: key)


def test_the_metrics_are_asked_for_with_the_key() -> None:
    with http_servers() as start:
        url = start(Health)
        assert parts.parts(sources(url, "geheim"))["replica/metrics.txt"]() == "dsv4_ready 1"
        assert parts.parts(sources(url, ""))["replica/readyz.txt"]() == "dsv4_ready 1"
        with pytest.raises(Refused, match="HTTP 401; set API_KEY_FILE"):
            parts.parts(sources(url, "wrong"))["replica/metrics.txt"]()
