"""With a key, every route of vLLM needs it, but for the open ones."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from dsv4_serve.healthcheck import key_usage
from dsv4_serve.healthcheck.key_guard import KeyGuard
from dsv4_serve.healthcheck.key_limits import KeyLimits

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
        [(b"x-api-key", b"other")],
        [(b"x-api-key", b"Bearer s3cret")],
        [(b"x-api-key", b"s3cret"), (b"x-api-key", b"s3cret")],
        [*GOOD, (b"x-api-key", b"other")],
        [(b"authorization", b"Bearer other"), (b"x-api-key", b"s3cret")],
        [(b"authorization", b"Basic s3cret"), (b"x-api-key", b"s3cret")],
        [(b"authorization", b""), (b"x-api-key", b"s3cret")],
    ],
)
def test_headers_that_do_not_carry_the_key(headers: list[tuple[bytes, bytes]]) -> None:
    assert status("/metrics", headers) == 401


@given(st.binary(max_size=40), st.text(max_size=20))
def test_nothing_but_the_key_opens_a_route(value: bytes, path: str) -> None:
    if value.partition(b" ")[2] != b"s3cret" and path not in ("/health", "/ping"):
        assert status(path, [(b"authorization", value)]) == 401


@pytest.mark.parametrize(
    "headers",
    [[(b"X-Api-Key", b"\t s3cret  ")], [*GOOD, (b"x-api-key", b"s3cret")], [(b"Authorization", b"bearer s3cret")]],
)
def test_headers_that_carry_the_key(headers: list[tuple[bytes, bytes]]) -> None:
    assert status("/v1/messages", headers) == 200


ALICE, ALICE_2, BOB = "a1b2c3d4e5f6a7b8c9", "new-key-of-alice-2026", "bobs-own-key-0123456"
FILE = f"# team\nalice {ALICE} 3 1\nalice {ALICE_2} 3 1\n\nbob {BOB}\n"


class Engine:
    """As vLLM's engine client: deltas where the sampling says so, else the whole answer at its end."""

    async def generate(self, prompt: dict[str, Any], sampling_params: Any, request_id: str) -> AsyncIterator[Any]:
        for tokens in ([1], [2, 3]) if sampling_params.output_kind.name == "DELTA" else ([1, 2, 3],):
            yield SimpleNamespace(
                prompt_token_ids=[0] * 5,
                outputs=[SimpleNamespace(index=0, token_ids=tokens), SimpleNamespace(index=1, token_ids=[9])],
            )
            await asyncio.sleep(0)


class Server:
    """A guard with a key file before an app that generates, and what it sent, logged and counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, **env: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []
        monkeypatch.setattr(key_usage, "write_line", self.lines.append)
        for kind in ("Counter", "Gauge"):
            made = functools.partial(getattr(prometheus_client, kind), registry=(registry := CollectorRegistry()))
            monkeypatch.setattr(prometheus_client, kind, made)
            self.registries = [*getattr(self, "registries", []), registry]
        self.engine = Engine()
        self.app = SimpleNamespace(state=SimpleNamespace(engine_client=self.engine))
        self.path, self.kind = path, "DELTA"
        path.write_text(FILE)
        self.read_on = asyncio.Event()
        self.guard = KeyGuard(self._answer, {**KEY, "API_KEY_FILE": str(path), **env})

    async def _answer(self, scope: dict[str, Any], _receive: Any, send: Any) -> None:
        self.seen.append(scope)
        sampling = SimpleNamespace(output_kind=SimpleNamespace(name=self.kind))
        await send({"type": "http.response.start", "status": 200})
        async for _ in self.engine.generate({"prompt_token_ids": [0] * 5}, sampling, "r"):
            if scope["path"] == "/slow":
                await self.read_on.wait()
        await send({"type": "http.response.body", "body": b"x"})

    async def ask(self, key: str, path: str = "/v1/completions") -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"key=geheim", "app": self.app}
        scope["headers"] = [(b"authorization", f"Bearer {key}".encode())]
        await self.guard(scope, None, send)
        assert scope["query_string"] == b""
        return sent[0]["status"], dict(sent[0].get("headers", ())), sent[-1]["body"]

    def value(self, metric: str, **labels: str) -> float | None:
        found = [registry.get_sample_value(metric, labels) for registry in self.registries]
        return next((one for one in found if one is not None), None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    return Server(monkeypatch, tmp_path / "keys")


def test_vllm_gets_the_key_that_it_knows_in_place_of_the_clients(server: Server) -> None:
    assert asyncio.run(server.ask(BOB))[0] == 200
    assert server.seen[0]["headers"] == [(b"authorization", b"Bearer s3cret")]
    assert server.seen[0]["query_string"] == b"key=geheim"  # the app still gets it
    assert asyncio.run(server.ask("nobodys-key-at-all-1"))[0] == 401
    assert asyncio.run(server.ask("s3cret"))[0] == 200  # the replica's own
    assert len(server.lines) == 1


def test_requests_a_minute_are_counted_by_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(server.guard, "_limits", KeyLimits(lambda: now[0]))
    codes = []
    for key in (ALICE, ALICE_2, ALICE, ALICE_2):
        codes.append(asyncio.run(server.ask(key))[0])
        now[0] += 10
    assert codes == [200, 200, 200, 429]
    code, headers, body = asyncio.run(server.ask(ALICE, "/v1/messages"))
    assert (code, headers[b"retry-after"]) == (429, b"20")
    assert json.loads(body)["error"]["type"] == "rate_limit_error"
    assert json.loads(body)["type"] == "error"
    body = asyncio.run(server.ask(ALICE))[2]
    assert json.loads(body) == {
        "error": {
            "message": "This key may send 3 requests a minute. Retry in 20 s.",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    assert [asyncio.run(server.ask(BOB))[0] for _ in range(9)] == [200] * 9
    now[0] += 20
    assert asyncio.run(server.ask(ALICE))[0] == 200  # refused ones did not count
    assert server.value("dsv4_key_refused_total", name="alice", limit="requests") == 3


def test_a_request_that_cannot_be_counted_frees_its_place(server: Server) -> None:
    """Metrics of several processes are files: a full disk must not lock a name out."""

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.guard._usage, "begin", full)
        with pytest.raises(OSError, match="No space"):
            asyncio.run(server.ask(ALICE))
    assert asyncio.run(server.ask(ALICE))[0] == 200


def test_a_client_that_goes_away_frees_its_place_and_pays(server: Server) -> None:
    async def play() -> list[int]:
        slow = asyncio.create_task(server.ask(ALICE, "/slow"))
        await asyncio.sleep(0.01)
        assert server.value("dsv4_key_requests_running", name="alice") == 1
        codes = [(await server.ask(ALICE_2))[0], (await server.ask(BOB))[0]]
        slow.cancel()
        await asyncio.wait([slow])
        return [*codes, (await server.ask(ALICE_2))[0]]

    assert asyncio.run(play()) == [429, 200, 200]
    assert server.value("dsv4_key_requests_running", name="alice") == 0
    gone = server.lines[1]
    assert (gone["path"], gone["whole"], gone["prompt_tokens"], gone["generated_tokens"]) == ("/slow", False, 5, 2)


@pytest.mark.parametrize("kind", ["DELTA", "CUMULATIVE", "FINAL_ONLY"])
def test_tokens_are_those_of_the_engine(server: Server, kind: str) -> None:
    server.kind = kind
    asyncio.run(server.ask(ALICE))
    asyncio.run(server.ask(BOB))
    expected = 5 if kind == "DELTA" else 4
    assert server.value("dsv4_key_prompt_tokens_total", name="alice") == 5
    assert server.value("dsv4_key_generated_tokens_total", name="alice") == expected
    assert server.value("dsv4_key_requests_total", name="bob") == 1
    assert {
        name: server.lines[1][name] for name in ("name", "status", "whole", "prompt_tokens", "generated_tokens")
    } == {
        "name": "bob",
        "status": 200,
        "whole": True,
        "prompt_tokens": 5,
        "generated_tokens": expected,
    }
    assert not [line for line in server.lines if ALICE in str(line) or BOB in str(line) or "geheim" in str(line)]


def test_behind_a_balancer_usage_is_counted_and_no_limit_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Server(monkeypatch, tmp_path / "keys", DSV4_KEY_LIMITS="off")
    assert [asyncio.run(server.ask(ALICE))[0] for _ in range(6)] == [200] * 6
    assert server.value("dsv4_key_requests_total", name="alice") == 6
