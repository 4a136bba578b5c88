"""What a replica proves before it gets traffic: it answers, its draft head drafts, its answers are not garbled."""

from __future__ import annotations

import time

from ...healthcheck import canary, gate
from ...healthcheck.state import Finding
from .. import served_plan
from ..client.errors import Unreachable
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import Ending
from .context import Replica


async def prove(replica: Replica) -> Ending | None:
    """Fill in the proofs of the replica's health; return why it is refused, or None."""
    await canary.one_token(replica.client)
    replica.health.generated_after = time.monotonic() - replica.health.started
    return await _draft_head(replica) or await corruption(replica)


async def _draft_head(replica: Replica) -> Ending | None:
    health, care = replica.health, replica.care
    drafts = served_plan.draft_tokens(replica.plan)
    if not drafts:
        health.gate = health.gate if health.degraded else Finding("the plan has no draft tokens")
        return None
    health.detail = "MTP gate"
    health.floor = care.floor(drafts)
    health.gate, health.gate_acceptance = await gate.run(replica.client, health.floor, care.gate.tokens)
    if not health.gate.problem:
        replica.say(f"MTP gate: {health.gate.detail}")
        return None
    await _alive(replica)
    if care.gate.below_floor == "warn":
        replica.say(f"WARNING: MTP gate: {health.gate.problem}")
        health.gate = Finding(health.gate.detail, warning=f"{health.gate.problem} (gate.below-floor = warn)")
        return None
    return Ending(exit_cause.GATE_REFUSED, f"MTP gate: {health.gate.problem}")


async def corruption(replica: Replica) -> Ending | None:
    """Run the corruption canary and fill in its proof; return why the replica is refused, or None."""
    health, gates = replica.health, replica.care.gate
    health.detail = "corruption canary"
    company = min(gates.concurrency, int(replica.plan.value("max-num-seqs", gates.concurrency)))
    found = await canary.run(replica.client, company, gates.tokens, gates.signs, gates.agreement_floor)
    if found.problem:
        await _alive(replica)
    if found.problem and gates.corrupted == "warn":
        replica.say(f"WARNING: corruption canary: {found.problem}")
        health.corruption = Finding(found.detail, warning=f"{found.problem} (gate.corrupted = warn)")
        return None
    health.corruption = found
    return Ending(exit_cause.CORRUPTED, f"corruption canary: {found.problem}") if found.problem else None


async def _alive(replica: Replica) -> None:
    """Raise Unreachable where the engine has died: it answers every prompt with an error then, and its end says why."""
    if not await replica.client.healthy():
        raise Unreachable("the engine has died")
