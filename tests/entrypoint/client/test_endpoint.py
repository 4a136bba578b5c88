"""The endpoint of a replica: its two servers, its key, and the error when something else answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client import endpoint
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.errors import Refused, Unreachable
from dsv4_serve.entrypoint.errors import ConfigError, UsageError
from tests.support.http_servers import http_servers

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that answers paths with texts, to those who have its key; returns its URL."""
    with http_servers() as start:

        def answering(answers: dict[str, str], key: str = "") -> str:
            class Answering(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    allowed = not key or self.headers.get("Authorization") == f"Bearer {key}"
                    self.send_response(401 if not allowed else 200 if self.path in answers else 404)
                    self.end_headers()
                    self.wfile.write(answers.get(self.path, "").encode() if allowed else b"")

            return start(Answering)

        yield answering


def resolve(
    environ: dict[str, str], *, url: str | None = None, health: str | None = None, key_file: str | None = None
) -> Endpoint:
    return endpoint.resolve(url, health, key_file, environ)


def test_models_come_with_the_key(serve: Serve) -> None:
    answers = {"/v1/models": '{"data": [{"id": "a", "max_model_len": 64}, {"id": "b"}]}'}
    where = Endpoint(serve(answers, "secret"), None, "secret")
    assert [(one.id, one.max_model_len) for one in where.models()] == [("a", 64), ("b", None)]


def test_the_error_for_a_missing_key_names_the_way_to_give_it(serve: Serve) -> None:
    with pytest.raises(Refused, match=r"HTTP 401 \(unauthorized\); pass .* with --api-key-file"):
        Endpoint(serve({}, "secret")).models()


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        "[]",
        "hello",
        '{"data": [{}]}',
        '{"data": 3}',
        '{"data": []}',
        '{"data": [{"id": "a", "max_model_len": "x"}]}',
    ],
)
def test_another_server_is_no_vllm(serve: Serve, answer: str) -> None:
    with pytest.raises(Unreachable, match="the answer is not from vLLM"):
        Endpoint(serve({"/v1/models": answer})).models()


MALFORMED = [
    json.dumps({"argv": ["vllm", "serve"], **part})
    for part in ({"argv": None}, {"settings": []}, {"settings": {"a": 1}}, {"patches": "x"}, {"machine": []})
]


@pytest.mark.parametrize("answer", ["[]", "[" * 10**5, "hello", '{"settings": {}}', *MALFORMED])
def test_another_server_has_no_plan(serve: Serve, answer: str) -> None:
    with pytest.raises(Unreachable, match="not a plan"):
        Endpoint("http://nowhere", serve({"/plan": answer})).plan()


def test_an_error_is_reported_with_its_status(serve: Serve) -> None:
    with pytest.raises(Refused, match="/v1/models: HTTP 404"):
        Endpoint(serve({})).models()


def test_a_missing_replica_is_reported_in_one_sentence() -> None:
    with pytest.raises(Unreachable, match="no answer .*is a replica running there"):
        Endpoint("http://127.0.0.1:9").models()
    with pytest.raises(Unreachable, match="No health server is named"):
        Endpoint("http://127.0.0.1:9").plan()


def test_the_defaults_are_this_host_and_the_ports_of_the_environment() -> None:
    assert resolve({}) == Endpoint("http://localhost:8000", "http://localhost:8001")
    moved = resolve({"PORT": "9000", "DSV4_HEALTH_PORT": "9500"})
    assert moved == Endpoint("http://localhost:9000", "http://localhost:9500")


@pytest.mark.parametrize("port", ["abc", "70000"])
def test_an_invalid_port_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match=f"environment PORT: port = '?{port}'? "):
        resolve({"PORT": port})
    with pytest.raises(ConfigError, match=f"environment DSV4_HEALTH_PORT = '{port}' is not valid"):
        resolve({"DSV4_HEALTH_PORT": port})


def test_the_health_server_is_looked_for_on_the_host_of_the_url() -> None:
    assert resolve({}, url="https://box:1/v1/").health == "http://box:8001"
    assert resolve({}, url="http://[::1]:1").health == "http://[::1]:8001"
    assert resolve({}, health="none").health is None
    assert resolve({}, health="http://other:7/").health == "http://other:7"


@pytest.mark.parametrize(
    "url",
    [
        *("box:8000", "ftp://box", "http://", "http://box:port", "http://[::1", "http://box:0"),
        *("http://a b", "http://a\nb", "http://a..b", f"http://{64 * 'a'}.b:8000"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not an address; write it as http://HOST:PORT"):
        resolve({}, url=url)
    with pytest.raises(UsageError, match="u:\\*\\*\\*@") as shown:
        resolve({}, url="http://u:hunter2@box:0")
    assert "hunter2" not in str(shown.value)


def test_the_key_comes_from_a_file_or_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("secret\n")
    named = resolve({"VLLM_API_KEY": "other"}, key_file=str(file))
    assert named.key == "secret"
    assert "secret" not in repr(named)
    assert resolve({"API_KEY_FILE": str(file)}).key == "secret"
    assert resolve({"VLLM_API_KEY": "other"}).key == "other"


@pytest.mark.parametrize("held", [b"", b"two words", b"\xff\xfe", "schlüssel".encode()])
def test_a_file_without_a_key_is_refused(tmp_path: Path, held: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(held)
    with pytest.raises(ConfigError, match="no key|weak|not UTF-8|only printable ASCII"):
        resolve({}, key_file=str(file))
    with pytest.raises(ConfigError, match="cannot read"):
        resolve({}, key_file=str(tmp_path / "absent"))


@pytest.mark.parametrize("error", [Refused, Unreachable])
def test_a_password_in_a_url_is_not_shown(error: type[Exception]) -> None:
    assert "hunter2" not in str(error("http://user:hunter2@replica:8000: no answer"))
