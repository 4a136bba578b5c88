"""
An ASGI middleware for vLLM: what clients of OpenAI's and Anthropic's APIs expect and vLLM 0.32.0 lacks.

It answers `GET /v1/models/ID`, gives errors below /v1/messages Anthropic's shape, and FastAPI's own errors elsewhere
OpenAI's. vLLM imports this file in its own process (`--middleware`), which may be another installation: it imports the
standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from .error_body import error_body, is_anthropic, path_of

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
MODELS = "/v1/models"
FIRST_ERROR = 400


class ClientRoutes:
    """Answers the route of one model; reshapes errors; passes everything else on."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Pass the request on, or answer it."""
        path = path_of(scope) if scope["type"] == "http" else ""
        if path.startswith(f"{MODELS}/") and scope["method"] == "GET":
            await self._model(scope, receive, send)
        else:
            await self._app(scope, receive, _Reshaped(path, send) if path else send)

    async def _model(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Answer with one entry of vLLM's list of models."""
        name = path_of(scope).removeprefix(f"{MODELS}/")
        path = scope.get("root_path", "") + MODELS
        listed = _Kept()
        await self._app({**scope, "path": path, "raw_path": path.encode(), "query_string": b""}, receive, listed)
        models = _json(listed.body)
        if listed.status >= FIRST_ERROR or not isinstance(models.get("data"), list):
            await _answer(send, listed.status, bytes(listed.body))
            return
        for model in models["data"]:
            if model.get("id") == name:
                await _answer(send, 200, json.dumps(model).encode())
                return
        why = f"The model `{name}` does not exist. GET {MODELS} lists the models."
        await _answer(send, 404, error_body(path, 404, why, code="model_not_found", param="model"))


@dataclass
class _Kept:
    """An ASGI `send` that keeps a response."""

    status: int = 500
    body: bytearray = field(default_factory=bytearray)

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.body += message.get("body", b"")


@dataclass
class _Reshaped:
    """An ASGI `send` that passes a success on at once, and an error once it is whole and in the shape of its API."""

    path: str
    send: Send
    start: dict[str, Any] | None = None
    body: bytearray = field(default_factory=bytearray)

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] >= FIRST_ERROR:
            self.start = message
        elif self.start is None:
            await self.send(message)
        else:
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                status, body = self.start["status"], bytes(self.body)
                if is_anthropic(self.path) or "detail" in _json(body):
                    body = error_body(self.path, status, _message(body))
                    await _answer(self.send, status, body, self.start.get("headers", []))
                else:
                    await self.send(self.start)
                    await self.send({"type": "http.response.body", "body": body})


def _message(body: bytes) -> str:
    """Return what an error of vLLM or FastAPI says, whatever its shape."""
    answer = _json(body)
    error = answer.get("error", answer.get("detail"))
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else body.decode(errors="replace")


def _json(body: bytes | bytearray) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


async def _answer(send: Send, status: int, body: bytes, headers: Any = ()) -> None:
    changed = (b"content-type", b"content-length")
    kept = [(name, value) for name, value in headers if name.lower() not in changed]
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*kept, *own]})
    await send({"type": "http.response.body", "body": body})
