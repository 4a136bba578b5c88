"""The walk of the demo's DeepSeek-V4: a permutation, for the weights, and text, for people."""

import string

from dsv4_serve.demo.tokenizer import END_OF_THOUGHT, EOS, THINK
from dsv4_serve.demo.v4_text import ANSWER, THOUGHT, readable_walk
from dsv4_serve.demo.v4_weights import TINY


def walked(start: str, count: int) -> list[str]:
    walk = readable_walk()
    names = {n: token.replace("Ġ", " ") for token, n in walk.vocabulary.items()}
    token, out = walk.vocabulary[start], []
    for _ in range(count):
        token = walk.successors[token]
        out.append(names[token])
    return out


def test_it_is_a_permutation_of_as_many_tokens_as_the_model_has():
    walk = readable_walk()
    assert sorted(walk.successors) == sorted(walk.vocabulary.values()) == list(range(TINY.vocab))


def test_a_chat_gets_a_thought_an_answer_and_an_end():
    expected = [*THOUGHT, END_OF_THOUGHT, *ANSWER, EOS]
    assert walked(THINK, len(expected)) == expected


def test_other_text_goes_on_through_the_characters():
    assert "".join(walked("m", 5)) == "nopqr"
    assert set(string.printable) & set(walked("m", 96)) >= set(string.ascii_letters + string.digits + " ")
