"""Read a plan's URL, port, key and shutdown timeout; and switch its speculation off."""

from __future__ import annotations

import dataclasses

from .listen import API_PORT
from .plan import API_KEY, DRAFT_TOKENS, Plan, Setting


def url(plan: Plan) -> str:
    """Return the server's URL as this host reaches it, without a trailing slash."""
    scheme = "https" if plan.value("ssl-certfile") else "http"
    host = str(plan.value("host") or "127.0.0.1")
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port(plan)}"


def port(plan: Plan) -> int:
    """Return the port that the server listens on."""
    return int(plan.value("port", API_PORT))


def open_address(plan: Plan) -> str:
    """Return where the API is open to other machines without a key; empty where it is not."""
    host = str(plan.value("host") or "0.0.0.0")  # noqa: S104  vLLM's default
    if key(plan) or plan.value("uds") or host in {"localhost", "::1"} or host.startswith("127."):
        return ""
    return f"{host} port {port(plan)}"


def shutdown_timeout(plan: Plan) -> float:
    """Return the seconds that vLLM gives running requests to finish when it is stopped."""
    return float(plan.value("shutdown-timeout", 0))


def key(plan: Plan) -> str:
    """Return the bearer key; empty when none is set."""
    return plan.environment(secrets=True).get(API_KEY, "")


def without_draft(plan: Plan, reason: str) -> Plan:
    """Return the plan with speculation switched off, and the reason as its origin."""
    before = plan.flags[DRAFT_TOKENS]
    after = Setting(0, reason, (Setting(before.value, before.origin), *before.overridden))
    return dataclasses.replace(plan, flags={**plan.flags, DRAFT_TOKENS: after})
