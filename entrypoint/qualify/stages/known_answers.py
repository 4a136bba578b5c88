"""Known answers and drafts: the small checkpoint answers as it was constructed to, and its head drafts."""

from __future__ import annotations

from dataclasses import dataclass

from ...smoke.outcome import Outcome, failed, passed
from .. import known
from ..box import Box
from ..small import SmallReplica

ACCEPTED = 0.95
"""Of draft tokens; sound heads had all accepted, in every layout (H200, vLLM 0.32.0, 2026-11-28)."""
SUSPECTS = "a projection, a scale or a kernel of this layout is wrong here: try another --moe-backend, and report it"


def known_answers(box: Box, replica: SmallReplica) -> Outcome:
    """Prompts of several lengths, alone; draft tokens are counted."""
    asker, model = replica.asker, replica.checkpoint
    lengths = [n for n in box.sizes.prompts if not box.context or n + box.sizes.answer < box.context]
    questions = known.questions(model.answer, lengths, [box.sizes.answer], model.reach.queries.values())
    before = asker.counters(box.remaining)
    answers = [asker.one(question, box.remaining) for question in questions]
    after = asker.counters(box.remaining)
    right = sum(known.right(question, answer.tokens) for question, answer in zip(questions, answers, strict=True))
    counts = DraftCounts(
        right=right,
        requested=sum(len(question.answer) for question in questions),
        drafted=after.drafted - before.drafted,
        accepted=after.accepted - before.accepted,
    )
    return judged(counts, box.plan.draft_tokens, model.layout)


@dataclass(frozen=True)
class DraftCounts:
    """Tokens that are right and that were requested, draft tokens that were made and accepted."""

    right: int
    requested: int
    drafted: int
    accepted: int


def judged(counts: DraftCounts, planned: int, layout: str) -> Outcome:
    """Return the outcome of these counts; `planned` draft tokens are made in a step."""
    right, requested, drafted, accepted = counts.right, counts.requested, counts.drafted, counts.accepted
    figures = {"right": right, "asked": requested, "drafted": drafted, "accepted": accepted, "layout": layout}
    share = f"{accepted} of {drafted} draft tokens accepted"
    if right < requested:
        return failed(f"{right} of {requested} tokens are the known ones", SUSPECTS, **figures)
    if planned and not drafted:
        return failed("no token was drafted", "see vLLM's log for the draft head", **figures)
    if planned and accepted < ACCEPTED * drafted:
        return failed(
            f"{share}, the answers are right: the draft head computes noise",
            "check the patch series with `dsv4 patch verify`, or serve without drafts: NUM_SPECULATIVE_TOKENS=0",
            **figures,
        )
    return passed(f"{right} of {requested} tokens right in layout {layout}, {share}", **figures)
