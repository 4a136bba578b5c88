"""Check concurrent answers, and the draft tokens accepted by kind of prompt."""

from __future__ import annotations

import random
import secrets
import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...healthcheck import canary, gate
from ...healthcheck.positions import by_position
from ...healthcheck.state import Acceptance
from ..client.errors import Refused
from ..client.vllm import VllmClient
from ..draft_floors import drafter
from .context import Context
from .outcome import Outcome, failed, passed, skipped

JUDGED = ("prose", "code")
"""Random text is hard and repetition easy to draft, so only these are compared with the floor."""
SEED = 17


async def parallel(client: VllmClient, context: Context) -> Outcome:
    """The corruption canary: the same prompts alone and several at once agree, and nothing is garbled."""
    gates = context.supervision.gate
    finding = await canary.run(client, context.streams, gates.tokens, gates.signs, gates.agreement_floor)
    if finding.problem:
        return failed(
            finding.problem, "docs/explanation/health.md lists what garbles answers; try another --moe-backend"
        )
    return passed(finding.detail, streams=context.streams)


async def acceptance(client: VllmClient, context: Context) -> Outcome:
    """Draft tokens accepted for random text, prose, code and repetition, and by position, from vLLM's counters."""
    if context.drafts == 0:
        return skipped("served without draft tokens")
    try:
        speculates = (await client.counters()).speculates
    except Refused as error:
        return skipped(f"vLLM's counters are unavailable ({error})")
    if not speculates and context.drafts is None:
        return skipped("vLLM counts no draft tokens here")
    kinds: dict[str, Acceptance] = {}
    for kind, texts in _prompts(context).items():
        before = await client.settled_counters()
        for text in texts:
            await client.complete(text, context.prompts["acceptance"]["tokens"], salt=secrets.token_hex(8))
        after = await client.settled_counters()
        kinds[kind] = gate.reading(after).since(gate.reading(before))
    everything = sum(kinds.values(), Acceptance(0, 0))
    drafted = context.drafts or round(everything.drafted / max(1, everything.drafts)) or 1
    floors = context.supervision.floors(drafter(context.settings or {}), drafted)
    judged = {kind: kinds[kind] for kind in JUDGED}
    total = sum(judged.values(), Acceptance(0, 0))
    total = replace(total, at=total.at[: len(floors.positions)])
    figures = {kind: _figures(measured, context.record.acceptance.get(kind)) for kind, measured in kinds.items()}
    finding = gate.judge(total, judged, floors, counted=speculates)
    if finding.problem:
        return failed(finding.problem, f"measured, with published figures: {_summary(kinds, context)}", **figures)
    return passed(f"{_summary(kinds, context)}; floor of prose and code {floors.total:.0%}", **figures)


def _prompts(context: Context) -> dict[str, list[str]]:
    prompts = context.prompts["acceptance"]
    chance = random.Random(SEED)  # noqa: S311 - the same text each time
    noise = ["".join(chance.choices(string.printable[:62] + " ", k=prompts["random-characters"])) for _ in range(2)]
    return {"random": noise, **prompts["kinds"]}


def _figures(measured: Acceptance, recorded: float | None) -> dict[str, Any]:
    positions = [round(share, 4) for share in measured.positions]
    return {
        "drafted": measured.drafted,
        "accepted": measured.accepted,
        "drafts": measured.drafts,
        "by_position": positions,
        "on_record": recorded,
    }


def _summary(kinds: Mapping[str, Acceptance], context: Context) -> str:
    """Return each kind's acceptance with the figure on record."""
    record = context.record

    def summary(kind: str, measured: Acceptance) -> str:
        recorded = f"{record.acceptance[kind]:.0%} on record" if kind in record.acceptance else "no figure on record"
        share = "nothing" if measured.ratio is None else f"{measured.ratio:.0%}"
        positions = f", {by_position(measured)}" if len(measured.at) > 1 else ""
        return f"{kind} {share} of {measured.drafted} ({recorded}{positions})"

    source = f"; record: {record.source}" if record.source else ""
    return ", ".join(summary(kind, measured) for kind, measured in kinds.items()) + source
