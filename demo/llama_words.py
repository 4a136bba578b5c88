"""
What the constructed Llama says: its words, and which token follows which.

A chain has one first choice for each token. The choices after it matter only where vLLM's grammar forbids the first: in
JSON by a schema, and in the arguments of a tool call. They lead to its end by the shortest way.
"""

import re
from functools import cache
from itertools import pairwise

from .tokenizer import DSML, END_OF_THOUGHT, EOS, MARKS, THINK, byte_alphabet, spelled

NUMBERS = ("One:", "\nTwo:", "\nThree:", "\nFour:", "\nFive:", "\nSix:", "\nSeven:", "\nEight:")


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(" ?[^ ]+", text))


VERSE = _words(" a draft guesses the next three tokens, and vLLM checks them in one step, keeping only what is right.")
THOUGHT = _words("Whatever was asked, this model knows eight verses; it counts from One to Eight.")

CALLS = f"\n\n<{DSML}tool_calls>\n"
END_OF_CALLS = f"</{DSML}tool_calls>"
ARGUMENT = "constructed"  # the argument of every tool
END_OF_ARGUMENT = f"</{DSML}parameter>"
STRING = "demo"  # every string in JSON
CALL = (CALLS, END_OF_CALLS, ARGUMENT, END_OF_ARGUMENT, STRING)

ANSWER = "".join(number + "".join(VERSE) for number in NUMBERS)
ANSWER_TOKENS = len(NUMBERS) * (1 + len(VERSE)) + 1  # the last one is the end of the sequence
REASONING = "".join(THOUGHT)
QUESTION = "How does speculative decoding work?"

# What ends a structure, then what opens a short value: chosen in this order where a grammar forbids the first choice.
SHORTEST = (END_OF_ARGUMENT, END_OF_CALLS, *'/}]",:1["{', DSML)


@cache
def vocabulary() -> dict[str, int]:
    """Token to id: the bytes, DeepSeek-V4's marks, and the words of answer, thought and call, in the byte alphabet."""
    words = [spelled(word) for word in (*NUMBERS, *VERSE, *THOUGHT, *CALL)]
    return {token: index for index, token in enumerate((*byte_alphabet(), *MARKS, *words))}


def token_id(word: str) -> int:
    """Return the id of a word, a mark or a character."""
    return vocabulary()[word if word in MARKS else spelled(word)]


def choices() -> dict[str, tuple[str, ...]]:
    """Return what may follow a token, the first choice first; after any other token comes the first verse."""
    chains = ((NUMBERS[0], *VERSE), (THINK, *THOUGHT, END_OF_THOUGHT))
    pairs: dict[str, tuple[str, ...]] = {here: (there,) for chain in chains for here, there in pairwise(chain)}
    pairs |= dict.fromkeys(NUMBERS, VERSE[:1]) | {END_OF_CALLS: (EOS,)}
    return pairs | {">": (ARGUMENT,), ARGUMENT: (EOS, END_OF_ARGUMENT), '"': (STRING,), STRING: (EOS, '"')}
