"""Read a plan's URL, port, key and shutdown timeout; and switch its speculation off."""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Mapping

from . import supervision_settings
from .listen import API_PORT
from .parallel import parallel_of
from .plan import API_KEY, DEFAULT, DRAFT_TOKENS, KEY_FILE, Plan, Setting
from .supervision_settings import Supervision

STEP_TOKENS = 8192
"""Tokens of a step where a plan does not say: vLLM's default for most GPUs."""
SLOW_PREFILL = 500.0
"""Tokens a second of the slowest prefill that was reported (DeepGEMM#318); unmeasured here."""


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
    if (
        key(plan)
        or plan.value("uds")
        or parallel_of(plan.flags).headless
        or host in {"localhost", "::1"}
        or host.startswith("127.")
    ):
        return ""
    return f"{host} port {port(plan)}"


def shutdown_timeout(plan: Plan) -> float:
    """Return the seconds that vLLM gives running requests to finish when it is stopped."""
    return float(plan.value("shutdown-timeout", 0))


def key(plan: Plan) -> str:
    """Return the bearer key; empty when none is set."""
    return plan.environment(secrets=True).get(API_KEY, "")


@functools.cache
def _own_key() -> str:
    return secrets.token_hex(32)


def with_own_key(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """
    Return the plan with a key that only this process and its vLLM know, where a key file has those of the clients.

    Keys of the file may be withdrawn while it serves; this one stays.
    """
    if not (environ.get(KEY_FILE) and key(plan)):
        return plan
    before = plan.env[API_KEY]
    return dataclasses.replace(plan, env={**plan.env, API_KEY: dataclasses.replace(before, value=_own_key())})


def without_draft(plan: Plan, reason: str) -> Plan:
    """Return the plan with speculation switched off, and the reason as its origin."""
    before = plan.flags[DRAFT_TOKENS]
    after = Setting(0, reason, (Setting(before.value, before.origin), *before.overridden))
    return dataclasses.replace(plan, flags={**plan.flags, DRAFT_TOKENS: after})


def supervision(plan: Plan) -> Supervision:
    """
    Return the settings of the supervisor, with the graces that the plan's own steps need.

    A grace that is set is kept. The defaults are longer than any step but one of very many tokens.
    """
    settings = supervision_settings.read(plan.supervision)
    supervise = settings.supervise
    step = int(plan.value("max-num-batched-tokens", STEP_TOKENS)) / SLOW_PREFILL
    needed = {"ready_grace": step + 2 * supervise.poll, "live_grace": 2 * step}
    longer = {
        name: max(getattr(supervise, name), seconds)
        for name, seconds in needed.items()
        if not _is_set(plan, f"supervise.{name.replace('_', '-')}")
    }
    return settings.model_copy(update={"supervise": supervise.model_copy(update=longer)})


def _is_set(plan: Plan, name: str) -> bool:
    setting = plan.supervision.get(name)
    return setting is not None and setting.origin != DEFAULT
