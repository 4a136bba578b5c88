"""
The body of an error, as the clients of its route expect it: Anthropic's below /v1/messages, OpenAI's elsewhere.

The balancer's errors have the same bodies (`deploy/haproxy/haproxy.cfg`). vLLM's process imports this file, so it
imports the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""The types that both APIs have, by status."""


def path_of(scope: Mapping[str, Any]) -> str:
    """Return the route that an ASGI request names, without what the server is mounted below."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_anthropic(path: str) -> bool:
    """Tell whether a route is one of Anthropic's API."""
    return path.startswith("/v1/messages")


def error_body(path: str, status: int, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
    """Return the body of an error of this route."""
    anthropic = is_anthropic(path)
    of_server = "api_error" if anthropic else "server_error"
    error = {"message": message, "type": TYPES.get(status, of_server), "param": param, "code": code}
    return json.dumps({"type": "error", "error": error} if anthropic else {"error": error}).encode()
