"""One model by its id, and Anthropic's shape for errors below /v1/messages: what vLLM itself does not answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dsv4_serve.healthcheck.client_routes import ClientRoutes
from dsv4_serve.healthcheck.error_body import error_body

MODELS = {"object": "list", "data": [{"id": "demo", "object": "model"}, {"id": "lab/flash", "object": "model"}]}


class Answered:
    """An app that gives one answer, in pieces, behind the middleware."""

    def __init__(self, status: int, *pieces: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.status, self.pieces, self.headers = status, pieces, headers
        self.asked: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []

    async def app(self, scope: dict[str, Any], _receive: Any, send: Any) -> None:
        self.asked.append(scope)
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        for number, piece in enumerate(self.pieces):
            more = number + 1 < len(self.pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def ask(self, path: str, method: str = "GET", **scope: Any) -> tuple[int, bytes]:
        scope = {"type": "http", "method": method, "path": path, "headers": [], **scope}
        asyncio.run(ClientRoutes(self.app)(scope, None, self.send))
        return self.sent[0]["status"], b"".join(one.get("body", b"") for one in self.sent)


def vllm() -> Answered:
    """The list of models as vLLM answers it, in two pieces."""
    text = json.dumps(MODELS).encode()
    return Answered(200, text[:20], text[20:])


@pytest.mark.parametrize("name", ["demo", "lab/flash"])
def test_one_model_is_its_entry_in_the_list(name: str) -> None:
    asked = vllm()
    status, body = asked.ask(f"/v1/models/{name}", query_string=b"a=b", raw_path=b"/v1/models/x")
    assert (status, json.loads(body)["id"]) == (200, name)
    seen = asked.asked[0]
    assert (seen["path"], seen["raw_path"], seen["query_string"]) == ("/v1/models", b"/v1/models", b"")
    assert dict(asked.sent[0]["headers"])[b"content-length"] == str(len(body)).encode()


def test_below_a_root_path() -> None:
    asked = vllm()
    assert asked.ask("/api/v1/models/demo", root_path="/api")[0] == 200
    assert asked.asked[0]["path"] == "/api/v1/models"


@pytest.mark.parametrize("name", ["other", "", "demo/", "../models", 'a"b', "Demo"])
def test_an_unknown_model_is_404_in_openais_shape(name: str) -> None:
    status, body = vllm().ask(f"/v1/models/{name}")
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"], error["param"]) == (
        404,
        "not_found_error",
        "model_not_found",
        "model",
    )
    assert f"`{name}` does not exist" in error["message"]


def test_what_the_list_answers_instead_is_passed_on() -> None:
    assert Answered(503, b'{"error": "starting"}').ask("/v1/models/demo") == (503, b'{"error": "starting"}')
    assert Answered(200, b"no json").ask("/v1/models/demo") == (200, b"no json")


@pytest.mark.parametrize(
    ("path", "method"), [("/v1/models", "GET"), ("/v1/models/demo", "POST"), ("/v1/completions", "POST")]
)
def test_other_requests_pass_unchanged(path: str, method: str) -> None:
    asked = Answered(400, b'{"error": ', b'"x"}', headers=((b"a", b"b"),))
    assert asked.ask(path, method) == (400, b'{"error": "x"}')
    assert asked.asked[0]["path"] == path
    assert asked.sent[0]["headers"] == [(b"a", b"b")]


@pytest.mark.parametrize(("path", "status"), [("/v1/completions", 400), ("/nowhere", 404)])
def test_an_error_of_fastapi_has_openais_shape(path: str, status: int) -> None:
    asked = Answered(status, b'{"detail": "There was an error', b' parsing the body"}', headers=((b"a", b"b"),))
    answered, body = asked.ask(path, "POST")
    assert (answered, (b"a", b"b") in asked.sent[0]["headers"]) == (status, True)
    error = json.loads(body)["error"]
    assert (error["message"], error["code"]) == ("There was an error parsing the body", None)


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b"\xff"])
def test_an_error_that_is_no_json_passes(body: bytes) -> None:
    assert Answered(500, body).ask("/v1/completions", "POST") == (500, body)


def test_what_is_no_request_passes() -> None:
    asked = Answered(200)
    asyncio.run(ClientRoutes(asked.app)({"type": "lifespan"}, None, asked.send))
    assert asked.asked == [{"type": "lifespan"}]


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            400,
            b'{"error": {"message": "max_tokens", "type": "BadRequestError"}}',
            "invalid_request_error",
            "max_tokens",
        ),
        (404, b'{"type": "error", "error": {"type": "NotFoundError", "message": "no"}}', "not_found_error", "no"),
        (401, b'{"error": "Unauthorized"}', "authentication_error", "Unauthorized"),
        (405, b'{"detail": "Method Not Allowed"}', "invalid_request_error", "Method Not Allowed"),
        (500, b"Internal Server Error", "api_error", "Internal Server Error"),
        (503, b"[1]", "api_error", "[1]"),
    ],
)
def test_an_error_of_messages_has_anthropics_shape(status: int, body: bytes, kind: str, message: str) -> None:
    given = Answered(status, body[:5], body[5:], headers=((b"Content-Length", b"1"), (b"retry-after", b"7")))
    answered, shaped = given.ask("/v1/messages", "POST")
    assert (answered, json.loads(shaped)["type"]) == (status, "error")
    assert json.loads(shaped)["error"] == {"type": kind, "message": message, "param": None, "code": None}
    assert sorted(given.sent[0]["headers"]) == sorted(
        [
            (b"retry-after", b"7"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(shaped)).encode()),
        ]
    )


def test_a_stream_of_messages_is_passed_on_piece_by_piece() -> None:
    asked = Answered(200, b"event: a\n\n", b"event: b\n\n")
    assert asked.ask("/v1/messages", "POST") == (200, b"event: a\n\nevent: b\n\n")
    assert [one.get("body") for one in asked.sent] == [None, b"event: a\n\n", b"event: b\n\n"]


def test_both_shapes() -> None:
    openai, anthropic = (json.loads(error_body(path, 429, "slow")) for path in ("/v1/completions", "/v1/messages"))
    error = {"message": "slow", "type": "rate_limit_error", "param": None, "code": None}
    assert openai == {"error": error}
    assert anthropic == {"type": "error", "error": error}
    assert json.loads(error_body("/v1/completions", 500, ""))["error"]["type"] == "server_error"
