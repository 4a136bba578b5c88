"""Run `dsv4 smoke`: identify the replica, run every check, write a result."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .. import junit as junit_file
from .. import results
from ..client.endpoint import Endpoint
from ..client.vllm import VllmClient
from ..errors import UsageError, nearest
from . import context as contexts
from .context import Context
from .outcome import Outcome
from .report import SmokeReport
from .run import CHECKS, run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SmokeSettings:
    """
    How much of the context the long prompt fills, how many requests run at once, and which checks are skipped.

    `streams` None takes the plan's. `seconds` are for all checks together.
    """

    context_share: float
    seconds: float
    streams: int | None = None
    skip: tuple[str, ...] = ()


def smoke(endpoint: Endpoint, settings: SmokeSettings) -> SmokeReport:
    """Run every check; raise RequestFailed without a replica, UsageError for an unknown check."""
    if unknown := [name for name in settings.skip if name not in CHECKS]:
        hint = nearest(unknown[0], CHECKS)
        raise UsageError(f"--skip {unknown[0]}: no such check{hint}. Checks: {', '.join(CHECKS)}.")
    models = endpoint.models()
    plan, why = contexts.plan(endpoint)
    if why:
        log.info(f"{why} So the replica's settings are unknown.")
    context = contexts.context(
        tuple(model.id for model in models),
        models[0].max_model_len or 0,
        plan.values() if plan else None,
        settings.context_share,
        settings.streams,
    )
    outcomes = asyncio.run(_run(endpoint, context, settings))
    return SmokeReport(_without_user(endpoint.url), context.names[0], outcomes, why, plan.to_json() if plan else {})


async def _run(endpoint: Endpoint, context: Context, settings: SmokeSettings) -> list[Outcome]:
    client = VllmClient(endpoint.url, endpoint.key, context.names[0])
    try:
        return await run(client, context, settings.seconds, settings.skip)
    finally:
        await client.close()


def keep(report: SmokeReport, out: Path, junit: Path | None = None) -> Path:
    """Write the result below `out`, and JUnit XML if requested; return the result's path. Raise HostError."""
    if junit:
        junit_file.write(junit, report.junit())
    return results.write(out, "smoke", {"subject": _subject(report), "replica": report.replica, **report.to_json()})


def _subject(report: SmokeReport) -> str:
    """Return model, profile and hardware by the plan, else the served name."""
    choices = report.replica.get("choices", {})
    parts = (choices.get(name) for name in ("model-name", "profile", "hardware"))
    return "-".join(str(part) for part in parts if part) or report.model


def _without_user(url: str) -> str:
    """Return the URL without a user's name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
