"""
Signs that an answer is garbled. Each is a pure function of a prompt and its answer that returns a reason, or "".

They are the ways in which DeepSeek-V4 is known to break without an error: words in writing systems that the prompt does
not explain (concurrent requests on kernels without code for the GPU, vllm#40923), one phrase over and over (missing
tuned kernels, vllm#41834), NaN logits, bytes that are not text, special tokens in the middle of an answer, and answers
that are empty, wrong, or the same whatever was asked. A reason never quotes the answer.

Any sound model may show one sign once, in greedy decoding; a replica is garbled when two prompts show it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from ..entrypoint.client.answers import Completion
from . import scripts
from .prompts import Prompt

PROMPTS = 2
"""How many prompts have to show a sign."""
LOOP_TOKENS = 32
DOUBLED_WORDS = 3
SAME_TOKENS = 8
ANSWER_TOKENS = 32

_SPECIAL = re.compile(r"</?[|｜][^|｜<>\s]{1,60}[|｜]|(?:<[|｜]>\s*){3}")
_DOUBLED = re.compile(r"\b\w*?(\w{3,})\1\b", re.IGNORECASE)
_RULES = frozenset("-=_.*#~|·…—– \t\n")
"""What rules, leaders and empty tables are made of."""


def script_mix(prompt: Prompt, answer: Completion) -> str:
    """Letters that the prompt does not explain: see `scripts.unexplained`."""
    return scripts.unexplained(answer.text, prompt.script)


def repetition(prompt: Prompt, answer: Completion) -> str:
    """The last half of a long answer is one unit over and over, or its words double their endings."""
    if prompt.repeats or len(answer.tokens) < LOOP_TOKENS:
        return ""
    tail = answer.text[len(answer.text) // 2 :]
    length = period(tail)
    if 2 * length <= len(tail) and _is_loop(tail[:length]):
        return f"its last {len(tail)} characters are one sequence of {length}, repeated"
    doubled = {match.group().casefold() for match in _DOUBLED.finditer(answer.text)}
    return f"{len(doubled)} of its words double their endings" if len(doubled) >= DOUBLED_WORDS else ""


def period(text: str) -> int:
    """Return the length of the shortest unit whose repetition is the text; its last copy may be cut."""
    borders = [0] * len(text)
    for index in range(1, len(text)):
        border = borders[index - 1]
        while border and text[index] != text[border]:
            border = borders[border - 1]
        borders[index] = border + (text[index] == text[border])
    return len(text) - (borders[-1] if borders else 0)


def _is_loop(unit: str) -> bool:
    """Tell whether a unit is no rule, row of a table, or laughter, which sound answers repeat."""
    if set(unit) <= _RULES or (len(unit) == 1 and unit.isalnum()):
        return False
    solid = [character for character in unit if not character.isspace()]
    letters = sum(character.isalpha() for character in solid)
    return letters > 0.6 * len(solid) if letters else not any(map(str.isdigit, solid))


def logprobs(_prompt: Prompt, answer: Completion) -> str:
    """Log-probabilities that are NaN or infinite."""
    return answer.broken


def replacement(_prompt: Prompt, answer: Completion) -> str:
    """Characters that replace invalid UTF-8, but for a cut last one; control characters and unassigned ones."""
    text = answer.text.removesuffix("\ufffd")
    count = sum(1 for character in text if character == "\ufffd" or _is_no_text(character))
    return f"{count} of its characters are not text" if count else ""


def special_tokens(_prompt: Prompt, answer: Completion) -> str:
    """Special tokens, such as a beginning of sentence, as text."""
    count = len(_SPECIAL.findall(answer.text))
    return f"{count} special tokens are in it" if count else ""


def empty(_prompt: Prompt, answer: Completion) -> str:
    """No visible character, where the numbers are sound."""
    return "it is empty" if not answer.broken and not any(map(_is_visible, answer.text)) else ""


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] not in "ZC"  # blanks, controls, marks of zero width


def _is_no_text(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cn", "Co") and not character.isspace()


def known_answer(prompt: Prompt, answer: Completion) -> str:
    """A long answer without anything that the prompt's right continuation has."""
    if not prompt.expects or answer.broken or len(answer.tokens) < ANSWER_TOKENS:
        return ""
    return "" if re.search(prompt.expects, answer.text) else "it is wrong"


def independent(answers: Sequence[tuple[Prompt, Completion]]) -> list[Prompt]:
    """Return the prompts, of two kinds at least, whose answers begin with the same SAME_TOKENS tokens."""
    found: dict[tuple[int, ...], dict[Prompt, None]] = {}
    for prompt, answer in answers:
        if len(answer.tokens) >= SAME_TOKENS:
            found.setdefault(answer.tokens[:SAME_TOKENS], {})[prompt] = None
    return [prompt for group in found.values() if len({each.kind for each in group}) > 1 for prompt in group]


SIGNS: Mapping[str, Callable[[Prompt, Completion], str]] = {
    "script-mix": script_mix,
    "repetition": repetition,
    "logprobs": logprobs,
    "replacement": replacement,
    "special-tokens": special_tokens,
    "empty": empty,
    "known-answers": known_answer,
}
INDEPENDENT = "prompt-independence"
"""The sign that no answer shows alone."""
NAMES = (*SIGNS, INDEPENDENT)
