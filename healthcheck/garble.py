"""
Signs that an answer is garbled. Each is a pure function of a prompt and its answer that returns a reason, or "".

They are the ways in which DeepSeek-V4 is known to break without an error: words in writing systems that the prompt does
not explain (concurrent requests on kernels without code for the GPU, vllm#40923), one phrase over and over (missing
tuned kernels, vllm#41834), NaN logits, and bytes that are not text. A reason never quotes the answer.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..entrypoint.client.answers import Completion
from .prompts import Prompt

FOREIGN_SHARE = 0.2
REPLACEMENT_SHARE = 0.1
LOOP_TOKENS = 32
LOOP_UNIT = 16

_EVERYWHERE = frozenset({"LATIN", "GREEK"})  # names, code and mathematics
_NAMED = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "IDEOGRAPHIC": "CJK", "MODIFIER": ""}
"""Writing systems by the first word of Unicode names, where the two differ."""


def script_mix(prompt: Prompt, answer: Completion) -> str:
    """Letters of other writing systems than the prompt's: of two, or more than FOREIGN_SHARE of all letters."""
    letters = Counter(filter(None, map(script, unicodedata.normalize("NFKC", answer.text))))
    foreign = sorted(letters.keys() - _EVERYWHERE - {prompt.script})
    share = sum(letters[name] for name in foreign) / max(1, letters.total())
    if len(foreign) < 2 and share <= FOREIGN_SHARE:
        return ""
    return f"{share:.0%} of its letters are {' and '.join(name.capitalize() for name in foreign)}"


def repetition(prompt: Prompt, answer: Completion) -> str:
    """A unit of up to LOOP_UNIT tokens, repeated, is the whole last half of an answer of LOOP_TOKENS or more."""
    tail = answer.tokens[len(answer.tokens) // 2 :]
    if prompt.repeats or len(answer.tokens) < LOOP_TOKENS:
        return ""
    for unit in range(1, min(LOOP_UNIT, len(tail) // 2) + 1):
        if tail[unit:] == tail[:-unit]:
            return f"its last {len(tail)} tokens are one sequence of {unit}, repeated"
    return ""


def logprobs(_prompt: Prompt, answer: Completion) -> str:
    """Log-probabilities that are NaN or infinite."""
    return answer.broken


def replacement(_prompt: Prompt, answer: Completion) -> str:
    """More than REPLACEMENT_SHARE of its characters replace invalid UTF-8; one at the end is a cut character."""
    text = answer.text.removesuffix("\ufffd")
    share = text.count("\ufffd") / max(1, len(text))
    return f"{share:.0%} of its characters are not text" if share > REPLACEMENT_SHARE else ""


@dataclass(frozen=True)
class Sign:
    """The function that finds a sign, and the number of prompts that have to show it."""

    find: Callable[[Prompt, Completion], str]
    prompts: int = 1


SIGNS: Mapping[str, Sign] = {
    "script-mix": Sign(script_mix),
    "repetition": Sign(repetition, prompts=2),  # even a sound model may loop once in greedy decoding
    "logprobs": Sign(logprobs),
    "replacement": Sign(replacement),
}


def script(character: str) -> str:
    """Return the writing system of a letter by its Unicode name (`CYRILLIC`; `CJK` for Japanese too), "" for others."""
    if not character.isalpha():
        return ""
    first = unicodedata.name(character, "UNNAMED").split()[0]
    return _NAMED.get(first, first)
