"""Depth: prompts up to the plan's context whose answer a token at their far end decides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ...client.answers import Completion
from ...smoke.outcome import Outcome, failed, inconclusive, passed
from .. import known
from ..box import Box
from ..known import Question
from ..sizes import Sizes
from ..small import SmallReplica

SLACK = 4.0
"""A longer prompt is not begun unless so many times its expected seconds remain."""
SUSPECTS = (
    "compressed attention, its indexer or its cache is wrong at this length: serve a shorter context, and report it"
)


@dataclass(frozen=True)
class Sounding:
    """A question, its answer and its seconds."""

    question: Question
    answer: Completion
    seconds: float


def depth(box: Box, replica: SmallReplica) -> Outcome:
    """Ever longer prompts, while the time lasts; only compressed attention can reach the token that decides."""
    model, made = replica.checkpoint, list[Sounding]()
    planned = lengths(box.sizes, box.context)
    for length in planned:
        if made and expected(made[-1], length) * SLACK > box.remaining:
            break
        for question in known.far(model.answer, model.reach, length, box.sizes.depth_answer):
            began = time.monotonic()
            answer = replica.asker.one(question, box.remaining)
            made.append(Sounding(question, answer, time.monotonic() - began))
            if known.wrong(question, answer):
                return judged(made, planned)
    return judged(made, planned)


def lengths(sizes: Sizes, context: int) -> list[int]:
    """Return the lengths of prompts for a context, ascending."""
    room = (context or 4096) - sizes.depth_answer
    return sorted({min(max(int(share * room), sizes.shallowest), sizes.deepest, room) for share in sizes.depths})


def expected(last: Sounding, length: int) -> float:
    """Return the seconds that a longer prompt may take; attention grows faster than its length."""
    return float(last.seconds * (length / len(last.question.prompt)) ** 1.5)


def judged(made: Sequence[Sounding], planned: Sequence[int]) -> Outcome:
    """Return the outcome of soundings, the last of which may be wrong."""
    soundings = [
        {
            "asked": one.question.name,
            "tokens": len(one.question.prompt),
            "seconds": round(one.seconds, 2),
            "right": known.right(one.question, one.answer.tokens),
        }
        for one in made
    ]
    figures = {"soundings": soundings, "planned": list(planned)}
    if not made:
        return inconclusive("no prompt was sent", "raise --minutes")
    last = made[-1]
    size = f"{len(last.question.prompt):,} tokens"
    question = last.question
    if known.wrong(last.question, last.answer):
        right = known.right(question, last.answer.tokens)
        seen = f"the answer to {question.name} ignores the token that decides it"
        return failed(f"{seen}: {right} of {len(question.answer)} tokens right", SUSPECTS, **figures)
    speed = f"{len(last.question.prompt) / last.seconds:,.0f} tokens/s"
    if len(question.prompt) < max(planned):
        return inconclusive(
            f"right up to {size} ({speed}); {max(planned):,} tokens were not reached in the time left",
            "raise --minutes, and run it again",
        )
    return passed(f"right up to {size}, {last.seconds:.1f} s ({speed})", **figures)
