"""Corruption under load: the same requests alone and as many at once as the plan runs, token by token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice

from ...client.answers import Completion
from ...smoke.outcome import Outcome, failed, passed, skipped
from .. import known
from ..box import Box
from ..known import Question
from ..small import SmallReplica

LOGPROB = 0.1
"""The largest difference of a log-probability; on CPU all are equal (2 cores, vLLM 0.32.0, 2026-11-29), on GPUs the
tolerance is an estimate."""
SUSPECTS = (
    "the kernels for batches are wrong on this GPU: try another --moe-backend, then fewer requests (MAX_NUM_SEQS)"
)


def load(box: Box, replica: SmallReplica) -> Outcome:
    """Prompts and answers of mixed lengths; none of them may change by what runs at the same time."""
    at_once = min(box.requests, box.sizes.requests)
    if at_once < 2:
        return skipped("the plan runs one request at a time")
    questions = distinct_questions(box, replica)[: 2 * at_once]
    asker = replica.asker
    began = time.monotonic()
    alone = [asker.one(question, box.remaining) for question in questions]
    middle = time.monotonic()
    together = list(islice(cycle(range(len(questions))), max(at_once, len(questions))))
    answers: list[Completion] = []
    for first in range(0, len(together), at_once):  # as many at once as the plan runs, and not one more
        batch = together[first : first + at_once]
        answers += asker.at_once([questions[index] for index in batch], box.remaining)
    ended = time.monotonic()
    tokens = sum(len(answer.tokens) for answer in answers)
    speed = {
        "tokens_per_second_alone": round(sum(len(answer.tokens) for answer in alone) / (middle - began), 2),
        "tokens_per_second_at_once": round(tokens / (ended - middle), 2),
    }
    pairs = [(questions[index], alone[index], answer) for index, answer in zip(together, answers, strict=True)]
    return judged(pairs, at_once, speed)


def distinct_questions(box: Box, replica: SmallReplica) -> list[Question]:
    """Return the different requests."""
    sizes, model = box.sizes, replica.checkpoint
    longest = max(sizes.load_answers)
    lengths = [n for n in sizes.load_prompts if not box.context or n + longest < box.context]
    return known.questions(model.answer, lengths, sizes.load_answers, model.reach.queries.values())


def judged(pairs: Sequence[tuple[Question, Completion, Completion]], at_once: int, speed: dict[str, float]) -> Outcome:
    """Return the outcome of questions with their answers alone and at once."""
    differences = [known.difference(alone, answer) for _, alone, answer in pairs]
    changed = [
        f"{question.name}: token {found.token + 1} of {len(question.answer)}"
        for (question, *_), found in zip(pairs, differences, strict=True)
        if found.token is not None
    ]
    both = [(question, one) for question, alone, answer in pairs for one in (alone, answer)]
    wrong = [text for question, one in both if (text := known.wrong(question, one))]
    largest = max((found.logprob for found in differences), default=0.0)
    figures = {
        "requests": len(pairs),
        "at_once": at_once,
        "tokens": sum(len(answer.tokens) for *_, answer in pairs),
        "changed": len(changed),
        "wrong": len(wrong),
        "largest_logprob_difference": round(largest, 6),
        **speed,
    }
    if changed:
        seen = f"{len(changed)} of {len(pairs)} answers change with {at_once} requests at once, first {changed[0]}"
        return failed(seen, SUSPECTS, **figures)
    if wrong:
        return failed(f"{len(wrong)} answers are wrong, both alone and at once: {wrong[0]}", SUSPECTS, **figures)
    if largest > LOGPROB:
        seen = f"log-probabilities differ by up to {largest:.2g} with {at_once} requests at once (at most {LOGPROB})"
        return failed(seen, SUSPECTS, **figures)
    seen = f"{len(pairs)} answers, {figures['tokens']:,} tokens, the same alone and {at_once} at once"
    return passed(f"{seen}; log-probabilities differ by {largest:.2g} at most", **figures)
