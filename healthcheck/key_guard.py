"""
An ASGI middleware for vLLM: with a key set, every route needs it, but for those in DSV4_OPEN_ROUTES.

vLLM 0.32.0 asks for its key below /v1, /v2, /inference and /cohere only; /invocations generates without it.
vLLM imports this file in its own process (`--middleware`), which may be another installation: it imports the standard
library only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .error_body import error_body

KEY, OPEN = "VLLM_API_KEY", "DSV4_OPEN_ROUTES"
OPEN_ROUTES = ("/health", "/ping")
"""Probes, which hold no data."""

UNAUTHORIZED = "This server requires the header `Authorization: Bearer KEY` with its API key."

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class KeyGuard:
    """Answers 401 to a request without the key; `environ` is read once."""

    def __init__(self, app: App, environ: Mapping[str, str] = os.environ) -> None:
        self._app = app
        self._key = _digest(environ.get(KEY, "").encode())
        self._closed = bool(environ.get(KEY))
        self._open = frozenset(environ.get(OPEN, "").replace(",", " ").split() or OPEN_ROUTES)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on, or answer it."""
        if self._passes(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = error_body(_path(scope), 401, UNAUTHORIZED, code="invalid_api_key")
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _passes(self, scope: Mapping[str, Any]) -> bool:
        if not self._closed or scope["type"] not in ("http", "websocket") or self._is_preflight(scope):
            return True
        if _path(scope) in self._open:
            return True
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given.pop().partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(_digest(key), self._key)

    @staticmethod
    def _is_preflight(scope: Mapping[str, Any]) -> bool:
        """
        Tell whether a browser asks if it may send a request; it sends no key with that.

        Without an origin, vLLM's CORS middleware would pass it on, and /metrics answers every method.
        """
        names = {name.lower() for name, _ in scope["headers"]}
        return scope.get("method") == "OPTIONS" and {b"access-control-request-method", b"origin"} <= names


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _path(scope: Mapping[str, Any]) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
