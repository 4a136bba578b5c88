"""
The draft gate: it measures the share of draft tokens accepted for a few fixed prompts, in all and by position.

A drafter with shuffled weights loads like a good one and changes no answer; only vLLM's counters reveal it. One that
drafts its first token well and the others badly was seen in public: it costs a whole draft and brings one token.
Acceptance = accepted / drafted tokens. A broken drafter stays below NOISE. One read with wrong scales, or run by an
untuned kernel, lies between NOISE and the floor (14 %, and 35 % with a tuned kernel, in a third-party report).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..entrypoint.client.counters import Counters
from ..entrypoint.client.errors import Refused
from ..entrypoint.client.vllm import VllmClient
from ..entrypoint.draft_floors import Floors
from .positions import COLLAPSED, EXPECTED, by_position, collapses
from .prompts import prompts
from .state import Acceptance, Finding

NOISE = 0.10
_REMEDY = "check the checkpoint's mtp.* tensors and `dsv4 patch verify`, or serve with NUM_SPECULATIVE_TOKENS=0"
_FEWER = "serve with NUM_SPECULATIVE_TOKENS=1, or check the checkpoint's mtp.* tensors and `dsv4 patch verify`"


async def run(client: VllmClient, floors: Floors, tokens: int) -> tuple[Finding, Acceptance]:
    """
    Generate `tokens` tokens for each prompt, one after the other, and judge the share accepted.

    Draft tokens of concurrent requests are counted too. Raise Unreachable without an answer.
    """
    kinds: dict[str, Acceptance] = {}
    try:
        first = before = await client.settled_counters()
        for prompt in prompts():
            await client.complete(prompt.text, tokens)
            after = await client.settled_counters()
            kinds[prompt.kind] = kinds.get(prompt.kind, Acceptance(0, 0)) + reading(after).since(reading(before))
            before = after
    except Refused as error:
        problem = f"a test prompt was refused ({error}), so the drafter could not be measured; see vLLM's log"
        return Finding("not measured", problem), Acceptance(0, 0)
    total = reading(before).since(reading(first))
    total = replace(total, at=total.at[: len(floors.positions)])  # vLLM counts positions that k by load may not draft
    return judge(total, kinds, floors, counted=before.speculates), total


def reading(counters: Counters) -> Acceptance:
    """Return the draft tokens in a reading of vLLM's counters."""
    return Acceptance(counters.drafted, counters.accepted, counters.drafts, counters.accepted_at)


def judge(total: Acceptance, kinds: Mapping[str, Acceptance], floors: Floors, *, counted: bool = True) -> Finding:
    """Judge the counts; `counted` is whether vLLM counts draft tokens at all."""
    if not counted:
        return Finding(
            "no counters of draft tokens",
            "vLLM's /metrics has no vllm:spec_decode_* counters, so the drafter cannot be measured: remove"
            " disable-log-stats, and check speculative-config in `dsv4 explain`",
        )
    if total.ratio is None:
        return Finding(
            "no draft tokens", f"nothing was drafted for the test prompts: check speculative-config, {_REMEDY}"
        )
    detail = f"{_share(total)} of {total.drafted} draft tokens accepted, the floor is {floors.total:.0%}"
    by_kind = ", ".join(f"{kind} {_share(acceptance)}" for kind, acceptance in kinds.items())
    detail += f" ({by_kind})" if by_kind else ""
    detail += f"; {by_position(total)}" if len(total.at) > 1 else ""
    if collapses(total, floors):
        return Finding(detail, f"{detail}: {COLLAPSED}; {_FEWER}")
    if total.ratio < floors.total:
        verdict = (
            "it drafts noise, and decoding is slower than without it"
            if total.ratio < NOISE
            else "too few for a sound drafter"
        )
        return Finding(detail, f"{detail}: {verdict}; {_REMEDY}")
    if low := list(_low(total, floors)):
        return Finding(detail, f"{detail}: too few at {', '.join(low)}; {_REMEDY}")
    return Finding(detail)


def _low(total: Acceptance, floors: Floors) -> Iterator[str]:
    """Yield the positions below their floor."""
    for position, (share, floor) in enumerate(zip(total.positions, floors.positions, strict=False)):
        if share < floor and total.drafts * floor >= EXPECTED:
            yield f"position {position} ({share:.0%}, floor {floor:.0%})"


def _share(acceptance: Acceptance) -> str:
    return "nothing drafted" if acceptance.ratio is None else f"{acceptance.ratio:.0%}"
