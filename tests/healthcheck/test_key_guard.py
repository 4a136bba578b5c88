"""With a key, every route of vLLM needs it, but for the open ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.healthcheck.key_guard import KeyGuard

KEY = {"VLLM_API_KEY": "s3cret"}
GOOD = [(b"authorization", b"Bearer s3cret")]


def status(
    path: str, headers: list[tuple[bytes, bytes]], environ: Mapping[str, str] = KEY, **scope: Any
) -> int | str | None:
    """Ask the guard in front of an app that answers 200; the code of a closed websocket is a string."""
    sent: list[dict[str, Any]] = []

    async def app(_scope: dict[str, Any], _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, **scope}
    asyncio.run(KeyGuard(app, environ)(scope, None, send))
    return sent[0].get("status") or f"closed {sent[0]['code']}"


@pytest.mark.parametrize(
    "path",
    [
        "/invocations",
        "/tokenize",
        "/metrics",
        "/load",
        "/version",
        "/openapi.json",
        "/docs",
        "/v1/models",
        "/",
        "//health",
        "/health/x",
    ],
)
def test_a_route_needs_the_key(path: str) -> None:
    assert status(path, []) == 401
    assert status(path, [(b"authorization", b"Bearer other")]) == 401
    assert status(path, GOOD) == 200
    assert status(path, []) == status(path, [], method="OPTIONS") == 401
    assert status(path, [], {}) == 200
    assert status(path, [], type="websocket") == "closed 1008"
    assert status(path, GOOD, type="websocket") == 200


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_probes_stay_open(path: str) -> None:
    assert status(path, []) == 200
    assert status(f"/root{path}", [], root_path="/root") == 200
    assert status(path, [], {**KEY, "DSV4_OPEN_ROUTES": "/metrics"}) == 401


def test_more_routes_can_be_opened() -> None:
    environ = {**KEY, "DSV4_OPEN_ROUTES": "/health, /metrics"}
    assert status("/metrics", [], environ) == status("/health", [], environ) == 200
    assert status("/ping", [], environ) == 401


def test_a_preflight_and_the_lifespan_pass() -> None:
    asks, origin = (b"Access-Control-Request-Method", b"GET"), (b"Origin", b"https://chat.example")
    assert status("/v1/models", [asks, origin], method="OPTIONS") == 200
    assert status("/metrics", [asks], method="OPTIONS") == 401  # vLLM would answer with its metrics
    assert status("/metrics", [origin], method="OPTIONS") == status("/metrics", [asks, origin]) == 401
    assert status("", [], type="lifespan") == 200


@pytest.mark.parametrize(
    "headers",
    [
        [*GOOD, *GOOD],
        [*GOOD, (b"authorization", b"Bearer other")],
        [(b"authorization", b"s3cret")],
        [(b"authorization", b"Basic s3cret")],
        [(b"authorization", b"Bearer  s3cret")],
        [(b"authorization", b"Bearer s3cret\xff")],
        [(b"x-api-key", b"s3cret")],
    ],
)
def test_headers_that_do_not_carry_the_key(headers: list[tuple[bytes, bytes]]) -> None:
    assert status("/metrics", headers) == 401


@given(st.binary(max_size=40), st.text(max_size=20))
def test_nothing_but_the_key_opens_a_route(value: bytes, path: str) -> None:
    if value.partition(b" ")[2] != b"s3cret" and path not in ("/health", "/ping"):
        assert status(path, [(b"authorization", value)]) == 401
