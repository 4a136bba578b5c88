"""What clients of both APIs expect of the balancer: the shape of errors, methods, one model, stored responses."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from dsv4_serve.healthcheck.app import health_app
from dsv4_serve.healthcheck.state import Health
from tests.deploy.pair import Pair
from tests.deploy.test_balancer import ports
from tests.support.balancer import KEY, Balancer, Names, balancer
from tests.support.patience import slowness, until

OPENAI = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", "/v1/models", "/v1/models/a"]
ANTHROPIC = ["/v1/messages", "/v1/messages/count_tokens"]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND"]


def error_of(answer: httpx.Response) -> dict[str, str | None]:
    """Return an error, which has the shape of its route's API."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    if answer.request.url.path.startswith("/v1/messages"):
        assert (sorted(body), body["type"]) == (["error", "type"], "error")
    else:
        assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message", "param", "type"]
    return body["error"]


@pytest.fixture(scope="module")
def alone(binary: str, tmp_path_factory: pytest.TempPathFactory):
    """A balancer without a replica."""
    with balancer(tmp_path_factory.mktemp("alone"), Names(), binary=binary) as front:
        yield front


@pytest.mark.parametrize("path", [*OPENAI, *ANTHROPIC])
def test_every_error_has_the_shape_of_its_api(alone: Balancer, path: str) -> None:
    method = "GET" if path.startswith("/v1/models") else "POST"
    of_server = "api_error" if path in ANTHROPIC else "server_error"
    with alone.client(None) as client:
        answer = client.request(method, path)
        assert (answer.status_code, error_of(answer)["type"]) == (401, "authentication_error")
    with alone.client() as client:
        answer = client.request(method, path)
        assert (answer.status_code, error_of(answer)["type"]) == (503, of_server)
        assert answer.headers["retry-after"] == "5"
        answer = client.request("PUT", path)
        assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == method


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/files", "/v1/responses/resp_1", "/"])
def test_a_closed_route_has_the_shape_of_its_api(alone: Balancer, path: str) -> None:
    with alone.client() as client:
        for method in ("GET", "POST", "DELETE"):
            answer = client.request(method, path)
            assert (answer.status_code, error_of(answer)["type"]) == (404, "not_found_error")
    assert ("not stored" in (error_of(answer)["message"] or "")) == ("responses/" in path)


@pytest.mark.parametrize(
    "path", ["/x", "/v1/models", "/stat", "/metrics/", "/replica/1/status", "/replica/1/startupz/"]
)
def test_the_status_port_has_its_own_pages_only(alone: Balancer, path: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{alone.status_port}", trust_env=False) as client:
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain")
        assert client.post("/replica/1/startupz").status_code == 404
        assert {client.get(page).status_code for page in ("/", "/stats", "/stats;csv", "/metrics", "/keys")} == {200}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/v1/models/stand-in"])
def test_a_route_has_one_method(pair: Pair, path: str, method: str) -> None:
    allowed = "GET" if "models" in path else "POST"
    with pair.balancer.client() as client:
        override = {"X-HTTP-Method-Override": allowed, "X-Method-Override": allowed, "X-HTTP-Method": allowed}
        answer = client.request(method, path, headers=override, content=b"{}")
        assert (answer.status_code == 405) == (method != allowed)
        assert (answer.headers.get("allow") == allowed) == (method != allowed)


def test_one_model_by_its_id(pair: Pair) -> None:
    with pair.balancer.client() as client:
        assert client.get("/v1/models/stand-in").json() == {"id": "stand-in"}
        for other in ("other", "lab/other", "lab%2Fother"):
            answer = client.get(f"/v1/models/{other}")
            assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    with pair.balancer.client(None) as client:
        assert client.get("/v1/models/stand-in").status_code == 401


@pytest.mark.slow
@pytest.mark.process
def test_half_a_body_is_408_in_the_shape_of_its_api(pair: Pair) -> None:
    with ExitStack() as stack:  # both at once: each waits for half a minute
        waiting = {}
        for path in ("/v1/messages", "/v1/completions"):
            connection = socket.create_connection(("127.0.0.1", pair.balancer.port), timeout=60 * slowness())
            waiting[path] = stack.enter_context(connection)
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
            connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode())
        for path, connection in waiting.items():
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408 ")
            body = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert ("type" in body) == (path == "/v1/messages")
            assert body["error"]["type"] == "timeout_error"


def test_a_replica_that_answers_nothing_in_time_is_504(binary: str, tmp_path: Path) -> None:
    names = Names()
    names.running.append("127.0.0.4")
    with socket.create_server(("127.0.0.4", 0)) as silent:
        port = silent.getsockname()[1]
        env = {"REPLICA_PORT": str(port), "REPLICA_HEALTH_PORT": str(port), "REPLICA_TIMEOUT": "300ms"}
        with balancer(tmp_path, names, binary=binary, **env) as front, front.client() as client:
            assert until(lambda: "127.0.0.4" in front.tell("show servers state"), 10)
            for path, kind in (("/v1/messages", "timeout_error"), ("/v1/completions", "timeout_error")):
                answer = client.post(path, content=b"{}")
                assert (answer.status_code, error_of(answer)["type"]) == (504, kind)


def test_a_body_that_is_too_large_is_413_and_reaches_no_replica(pair: Pair, tmp_path: Path, binary: str) -> None:
    with (
        balancer(tmp_path, pair.names, binary=binary, **ports(pair), BALANCER_MAX_BODY="1000") as front,
        front.client() as client,
    ):
        assert until(lambda: front.up() == {"127.0.0.2", "127.0.0.3"}, 20)
        for path in ("/v1/messages", "/v1/completions"):
            answer = client.post(path, content=b" " * 1001)
            assert (answer.status_code, error_of(answer)["type"]) == (413, "request_too_large")
        assert client.post("/v1/completions", content=b'{"a": 1}'.ljust(1000)).status_code == 200


def test_without_a_replica_503_says_when_the_first_one_is_ready(binary: str, tmp_path: Path) -> None:
    """Two replicas start; one knows that it takes 40 s, the other one knows nothing."""
    names = Names()
    names.running += ["127.0.0.5", "127.0.0.6"]
    with starting("127.0.0.5", 40) as port, starting("127.0.0.6", None, port):
        env = {"REPLICA_PORT": str(port), "REPLICA_HEALTH_PORT": str(port)}
        with balancer(tmp_path, names, binary=binary, **env) as front, front.client() as client:
            assert until(lambda: 36 <= int(client.get("/v1/models").headers.get("retry-after", 0)) <= 40, 10)
            assert error_of(client.get("/v1/models"))["type"] == "server_error"


@contextmanager
def starting(address: str, seconds: int | None, port: int = 0) -> Iterator[int]:
    """A health server that answers as a start does; its port."""
    health = Health(phase="loading weights")
    health.last_start = {} if seconds is None else {"loading weights": seconds}
    app = health_app(health, clock=lambda: health.phase_began)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    self.send_response(message["status"])
                    for name, value in message["headers"]:
                        self.send_header(name.decode(), value.decode())
                    self.end_headers()
                else:
                    self.wfile.write(message["body"])

            scope = {"method": "GET", "path": self.path, "query_string": b"", "headers": []}
            asyncio.run(app(scope, None, send))

        def log_message(self, *_words: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer((address, port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
