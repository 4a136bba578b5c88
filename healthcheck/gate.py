"""
The MTP gate: it measures the share of draft tokens accepted for a few fixed prompts.

A draft head with shuffled weights loads like a good one and changes no answer; only vLLM's counters reveal it.
Acceptance = accepted / drafted tokens. Bands: the artifacts' publishers measured 82 to 96 % with one draft token on
prose, code and reasoning (vLLM forks, 2026-05). A broken head stays below NOISE. One read with wrong scales, or run by
an untuned kernel, lies between NOISE and the floor (14 and 35 % were measured).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..entrypoint.client.counters import Counters
from ..entrypoint.client.errors import Refused
from ..entrypoint.client.vllm import VllmClient
from .prompts import prompts
from .state import Acceptance, Finding

NOISE = 0.10

_REMEDY = "check the checkpoint's mtp.* tensors and `dsv4 patch verify`, or serve with NUM_SPECULATIVE_TOKENS=0"


async def run(client: VllmClient, floor: float, tokens: int) -> tuple[Finding, Acceptance]:
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
            kinds[prompt.kind] = _sum(kinds.get(prompt.kind), _accepted(before, after))
            before = after
    except Refused as error:
        problem = f"a test prompt was refused ({error}), so the draft head could not be measured; see vLLM's log"
        return Finding("not measured", problem), Acceptance(0, 0)
    total = _accepted(first, before)
    return judge(total, kinds, floor, counted=before.speculates), total


def judge(total: Acceptance, kinds: Mapping[str, Acceptance], floor: float, *, counted: bool = True) -> Finding:
    """Judge the counts; `counted` is whether vLLM counts draft tokens at all."""
    if not counted:
        return Finding(
            "no counters of draft tokens",
            "vLLM's /metrics has no vllm:spec_decode_* counters, so the draft head cannot be measured: remove"
            " disable-log-stats, and check speculative-config in `dsv4 explain`",
        )
    if total.ratio is None:
        return Finding(
            "no draft tokens", f"nothing was drafted for the test prompts: check speculative-config, {_REMEDY}"
        )
    detail = f"{_share(total)} of {total.drafted} draft tokens accepted, the floor is {floor:.0%}"
    by_kind = ", ".join(f"{kind} {_share(acceptance)}" for kind, acceptance in kinds.items())
    detail += f" ({by_kind})" if by_kind else ""
    if total.ratio >= floor:
        return Finding(detail)
    verdict = (
        "it drafts noise, and decoding is slower than without it"
        if total.ratio < NOISE
        else "too few for a sound draft head"
    )
    return Finding(detail, f"{detail}: {verdict}; {_REMEDY}")


def _share(acceptance: Acceptance) -> str:
    return "nothing drafted" if acceptance.ratio is None else f"{acceptance.ratio:.0%}"


def _accepted(before: Counters, after: Counters) -> Acceptance:
    return Acceptance(after.drafted - before.drafted, after.accepted - before.accepted)


def _sum(first: Acceptance | None, second: Acceptance) -> Acceptance:
    return Acceptance(first.drafted + second.drafted, first.accepted + second.accepted) if first else second
