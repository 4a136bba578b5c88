"""Prove a replica before it receives traffic: it answers, its drafter drafts, its answers are not garbled."""

from __future__ import annotations

import logging
import time

from ...healthcheck import canary, gate
from ...healthcheck.state import Finding
from .. import draft_floors, draft_schedule
from ..client.errors import Unreachable
from ..plan import plain
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from .context import VllmSession

log = logging.getLogger(__name__)


async def prove(session: VllmSession) -> ExitReason | None:
    """Run the proofs and record them in the replica's health; return why it is refused, or None."""
    await canary.one_token(session.client)
    session.health.generated_after = time.monotonic() - session.health.started
    return await _drafter(session) or await corruption(session)


async def _drafter(session: VllmSession) -> ExitReason | None:
    health, settings = session.health, session.settings
    plan = session.plan
    if not plan.draft_tokens:
        lost = plan.choices.get("drafter")
        detail = f"the plan has no draft tokens{f': {lost.origin}' if lost else ''}"
        log.info(f"draft gate: {detail}")
        health.gate = health.gate if health.degraded else Finding(detail)
        return None
    health.detail = "draft gate"
    drafter = draft_floors.drafter(plain(plan.flags))
    health.floors = settings.floors(drafter, draft_schedule.alone(plain(plan.flags)))
    health.gate, health.gate_acceptance = await gate.run(session.client, health.floors, settings.gate.tokens)
    if not health.gate.problem:
        log.info(f"draft gate: {health.gate.detail}")
        return None
    await _require_alive(session)
    if settings.gate.below_floor == "warn":
        log.warning(f"draft gate: {health.gate.problem}")
        health.gate = Finding(health.gate.detail, warning=f"{health.gate.problem} (gate.below-floor = warn)")
        return None
    return ExitReason(exit_cause.GATE_REFUSED, f"draft gate: {health.gate.problem}")


async def corruption(session: VllmSession, *, during_traffic: bool = False) -> ExitReason | None:
    """
    Run the corruption canary and record its result; return why the replica is refused, or None.

    Beside the traffic of users it sends one request at a time. No answer is then decoded alone, so two of them may
    differ, and only the signs count.
    """
    health, settings = session.health, session.settings.gate
    health.detail = "corruption canary"
    concurrency = 1 if during_traffic else min(settings.concurrency, _most_requests(session))
    floor = 0.0 if during_traffic else settings.agreement_floor
    finding = await canary.run(session.client, concurrency, settings.tokens, settings.signs, floor)
    health.corruption_at = time.monotonic()
    if finding.problem:
        await _require_alive(session)
    if finding.problem and settings.corrupted == "warn":
        log.warning(f"corruption canary: {finding.problem}")
        health.corruption = Finding(finding.detail, warning=f"{finding.problem} (gate.corrupted = warn)")
        return None
    if finding.warning:
        log.warning(f"corruption canary: {finding.warning}")
    health.corruption = finding
    return ExitReason(exit_cause.CORRUPTED, f"corruption canary: {finding.problem}") if finding.problem else None


def _most_requests(session: VllmSession) -> int:
    return int(session.plan.value("max-num-seqs", session.settings.gate.concurrency))


async def _require_alive(session: VllmSession) -> None:
    """Raise Unreachable when the engine has died: vLLM answers every prompt with an error until it exits."""
    if not await session.client.healthy():
        raise Unreachable("the engine has died")
