"""
An ASGI middleware for vLLM: with a key set, every route needs one, but for those in DSV4_OPEN_ROUTES.

vLLM 0.32.0 asks for its key below /v1, /v2, /inference and /cohere only; /invocations generates without it. It knows
one key, `VLLM_API_KEY`. With a key file (API_KEY_FILE) only this replica's own processes have that one, and a request
with a key of the file gets it here.
vLLM imports this file in its own process (`--middleware`), which may be another installation: it imports the standard
library, and the files that `supervisor/guard_path.py` copies.
"""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..entrypoint.key_file import KeyFile, KeyHolder, digest
from .error_body import error_body, path_of
from .key_limits import KeyLimits
from .key_usage import KeyRequest, KeyUsage

KEY, FILE, OPEN, LIMITS = "VLLM_API_KEY", "API_KEY_FILE", "DSV4_OPEN_ROUTES", "DSV4_KEY_LIMITS"
OPEN_ROUTES = ("/health", "/ping")
"""Probes, which hold no data."""
NO_KEY = "This server requires its API key, once: `Authorization: Bearer KEY` or `x-api-key: KEY`."
_HEADERS = (b"authorization", b"x-api-key")

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class _Refusal:
    status: int
    code: str
    message: str
    header: tuple[bytes, bytes]


class KeyGuard:
    """Answers 401 to a request without a key, and 429 over a limit; `environ` is read once, the key file again."""

    def __init__(self, app: App, environ: Mapping[str, str] = os.environ) -> None:
        self._app = app
        self._key = environ.get(KEY, "").encode(errors="surrogateescape")
        self._own = digest(self._key)
        self._closed = bool(self._key)
        self._open = frozenset(environ.get(OPEN, "").replace(",", " ").split() or OPEN_ROUTES)
        tell = logging.getLogger("vllm.dsv4").warning
        path = environ.get(FILE) if self._closed else None
        # `dsv4 serve` has read the file; if it has broken since, vLLM starts all the same, and is told.
        self._file = KeyFile(Path(path), lambda text: tell("%s", text), required=False) if path else None
        self._limits = KeyLimits() if environ.get(LIMITS) != "off" else None
        self._usage = KeyUsage() if path else None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on, or answer it."""
        if not self._closed or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        inner = {**scope}
        scope["query_string"] = b""  # the access log prints that of this dictionary, and a query may hold a key
        if path_of(inner) in self._open or _is_preflight(inner):
            await self._app(inner, receive, send)
            return
        key = key_of(inner["headers"])
        if key is not None and hmac.compare_digest(digest(key), self._own):
            await self._app(self._with_key(inner), receive, send)
            return
        holder = self._file.current().get(digest(key)) if self._file and key is not None else None
        if holder is None:
            await _refuse(inner, send, _Refusal(401, "invalid_api_key", NO_KEY, (b"www-authenticate", b"Bearer")))
        else:
            await self._let_in(holder, inner, receive, send)

    async def _let_in(self, holder: KeyHolder, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer 429, or pass the request on and count it."""
        assert self._usage is not None
        if over := self._limits.admit(holder) if self._limits else None:
            self._usage.refused.labels(holder.name, over.limit).inc()
            wait = (b"retry-after", str(over.retry_after).encode())
            await _refuse(scope, send, _Refusal(429, "rate_limit_exceeded", over.sentence, wait))
            return
        try:
            request = self._usage.begin(holder.name, scope)
            try:
                await self._app(self._with_key(scope), receive, _noting(request, send))
            finally:
                self._usage.end(request)
        finally:
            if self._limits:
                self._limits.release(holder)

    def _with_key(self, scope: dict[str, Any]) -> dict[str, Any]:
        """Return a scope with the one key that vLLM knows."""
        others = [(name, value) for name, value in scope["headers"] if name.lower() not in _HEADERS]
        return {**scope, "headers": [*others, (b"authorization", b"Bearer " + self._key)]}


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the key of a request: as Bearer, in x-api-key, or the same in both; None where it is none or unclear."""
    given = [(name.lower(), value.strip(b" \t")) for name, value in headers if name.lower() in _HEADERS]
    if len({name for name, _ in given}) != len(given):
        return None
    keys = {_bearer(value) if name == b"authorization" else value for name, value in given}
    return keys.pop() if len(keys) == 1 else None


def _bearer(value: bytes) -> bytes | None:
    scheme, _, key = value.partition(b" ")
    return key if scheme.lower() == b"bearer" else None


def _is_preflight(scope: Mapping[str, Any]) -> bool:
    """
    Tell whether a browser asks if it may send a request; it sends no key with that.

    Without an origin, vLLM's CORS middleware would pass it on, and /metrics answers every method.
    """
    names = {name.lower() for name, _ in scope["headers"]}
    return scope.get("method") == "OPTIONS" and {b"access-control-request-method", b"origin"} <= names


def _noting(request: KeyRequest, send: Any) -> Any:
    async def noting(message: dict[str, Any]) -> None:
        await send(message)
        if message["type"] == "http.response.start":
            request.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            request.whole = True

    return noting


async def _refuse(scope: Mapping[str, Any], send: Any, refusal: _Refusal) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = error_body(path_of(scope), refusal.status, refusal.message, code=refusal.code)
    headers = [(b"content-type", b"application/json"), refusal.header]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
