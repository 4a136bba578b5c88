"""`dsv4 smoke`: look at the replica, run every check, keep a receipt."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from .. import results
from ..client import endpoint as endpoints
from ..client.endpoint import Endpoint
from ..client.openai import Server
from ..errors import HostError, UsageError, nearest
from . import context as contexts
from .context import Context
from .outcome import Outcome
from .report import Report
from .run import CHECKS, run

Say = Callable[[str], None]


def smoke(options: argparse.Namespace, environ: Mapping[str, str], say: Say) -> Report:
    """Run every check and return what was found; raise NoAnswer without a replica, UsageError for an unknown check."""
    if unknown := [name for name in options.skip if name not in CHECKS]:
        hint = nearest(unknown[0], CHECKS)
        raise UsageError(f"--skip {unknown[0]}: no such check{hint}. Checks: {', '.join(CHECKS)}.")
    at = endpoints.from_options(options, environ)
    listed = at.listing()
    plan, why = contexts.plan(at)
    if why:
        say(f"{why} What the replica was told is not known.")
    known = {name: one.value for name, one in plan.settings.items()} if plan else None
    context = contexts.context(
        tuple(one.id for one in listed), listed[0].max_model_len or 0, known, options.context_share, options.streams
    )
    outcomes = asyncio.run(_asked(at, context, options, say))
    return Report(_address(at.url), context.names[0], outcomes, why, plan.to_json() if plan else {})


async def _asked(at: Endpoint, context: Context, options: argparse.Namespace, say: Say) -> list[Outcome]:
    server = Server(at.url, at.key, context.names[0])
    try:
        return await run(server, context, options.timeout, options.skip, say)
    finally:
        await server.close()


def keep(report: Report, options: argparse.Namespace) -> Path:
    """Write the receipt, and JUnit XML where it is asked for; return the receipt's path. Raise HostError."""
    if options.junit:
        try:
            Path(options.junit).write_text(report.junit(), encoding="utf-8")
        except OSError as error:
            raise HostError(f"--junit {options.junit}: cannot be written ({error.strerror}).") from None
    body = {"subject": _subject(report), "replica": report.replica, **report.to_json()}
    return results.write(Path(options.out), "smoke", body)


def _subject(report: Report) -> str:
    """Name model, profile and hardware where the plan does, else the served name."""
    chosen = report.replica.get("choices", {})
    parts = (chosen.get(name) for name in ("model-name", "profile", "hardware"))
    return "-".join(str(part) for part in parts if part) or report.model


def _address(url: str) -> str:
    """Return the URL without a user's name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
