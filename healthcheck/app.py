"""
The health server: a bare ASGI application over one `Health`.

The three probes are open, because kubelets and balancers have no key, and so is the page at `/`, which holds no data.
`/plan`, `/status` and `/metrics` require the bearer key if one is set.
"""

from __future__ import annotations

import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from ..entrypoint.key_file import digest
from . import checks, metrics, page, status
from .key_guard import key_of
from .state import Health

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Coroutine[Any, Any, None]]

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
UNREADY = 503
INDEX = """\
/startupz  the progress of the start, until the replica was ready once
/livez     whether the engine makes progress
/readyz    whether the replica may receive traffic
/plan      what is served, and where each setting came from (bearer key)
/status    what it does now, in figures, and why its last start ended, as JSON (bearer key)
/metrics   the same as numbers, for Prometheus (bearer key)
The first three take ?format=json, and the name of one check: /readyz/draft-gate
"""


@dataclass(frozen=True)
class HealthResponse:
    """One HTTP response."""

    status: int
    body: str | bytes
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


def health_app(health: Health, clock: Callable[[], float] = time.monotonic) -> App:
    """Return the ASGI application; `clock` is the clock of the times in `health`."""

    async def app(scope: Scope, _receive: object, send: Send) -> None:
        given = answer(health, clock(), scope)
        body = given.body.encode() if isinstance(given.body, str) else given.body
        headers = {
            "content-type": given.kind,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **given.headers,
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": given.status, "headers": pairs})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


def answer(health: Health, now: float, scope: Scope) -> HealthResponse:
    """Answer one request, given as its ASGI scope."""
    if scope["method"] not in ("GET", "HEAD"):
        return HealthResponse(405, "Only GET and HEAD are allowed here.\n", headers={"allow": "GET, HEAD"})
    head, *rest = scope["path"].removeprefix("/").split("/")
    group = head.removesuffix("z")
    if head.endswith("z") and group in checks.GROUPS:
        return _probe(group, rest, health, now, scope)
    if rest or head not in ("", "plan", "status", "metrics"):
        return HealthResponse(404, "There is nothing at this path; / lists the paths.\n")
    return _guarded(head, health, now, scope) if head else _front(scope)


def _front(scope: Scope) -> HealthResponse:
    """Answer `/`: the page to a browser, the list of paths to others."""
    if b"text/html" in dict(scope["headers"]).get(b"accept", b""):
        return HealthResponse(200, page.html(), page.CONTENT_TYPE, page.headers())
    return HealthResponse(200, INDEX, headers={"vary": "accept"})


def _guarded(head: str, health: Health, now: float, scope: Scope) -> HealthResponse:
    if health.key and not _authorized(health, scope):
        why = f"/{head} requires the header `Authorization: Bearer KEY` with the API key of this replica.\n"
        return HealthResponse(401, why, headers={"www-authenticate": 'Bearer realm="dsv4"'})
    if head == "metrics":
        return HealthResponse(200, metrics.as_text(health, now), metrics.CONTENT_TYPE)
    if not health.plan:
        return HealthResponse(503, f"There is no plan yet ({health.phase}).\n")
    if head == "status":
        return HealthResponse(200, json.dumps(status.as_json(health, now)) + "\n", JSON)
    return HealthResponse(200, json.dumps(health.plan, indent=2) + "\n", JSON)


def _probe(group: str, rest: list[str], health: Health, now: float, scope: Scope) -> HealthResponse:
    findings = checks.run(group, health, now)
    if rest:
        name = "/".join(rest)
        if name not in findings:
            return HealthResponse(404, f"/{group}z has no such check; it has {', '.join(findings)}.\n")
        findings = {name: findings[name]}
    form = parse_qs(scope["query_string"].decode("latin-1")).get("format", ["text"])[-1]
    status = 200 if checks.passed(findings) else UNREADY
    headers = _retry_after(health, now) if status == UNREADY and group != "live" else {}
    if form == "text":
        return HealthResponse(status, checks.as_text(group, findings), headers=headers)
    if form == "json":
        body = json.dumps(checks.as_json(group, findings, health, now)) + "\n"
        return HealthResponse(status, body, JSON, headers)
    return HealthResponse(400, "format must be text or json.\n")


def _retry_after(health: Health, now: float) -> dict[str, str]:
    """Return the header that balancers pass on to clients while no replica is ready."""
    left = health.ready_in(now)
    return {"retry-after": str(math.ceil(left))} if left else {}


def _authorized(health: Health, scope: Scope) -> bool:
    given = key_of(scope["headers"])
    if given is None:
        return False
    own = health.key.encode(errors="surrogateescape")  # as os.environ holds bytes that are not UTF-8
    if hmac.compare_digest(digest(given.strip()), digest(own)):
        return True
    return health.key_file is not None and digest(given.strip()) in health.key_file.current()
