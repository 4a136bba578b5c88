"""The checkpoint of qualification/gpu/tool_strict.py writes one known call, and a cell tells a right call from a broken one."""

import json

import pytest

from dsv4_serve.demo.tokenizer import DSML, END_OF_THOUGHT, EOS, spelled
from dsv4_serve.demo.v4_text import CHARACTERS
from qualification.gpu import tool_strict
from qualification.gpu.tool_strict import NAME, TimedAnswer, walk


def test_every_token_has_one_successor_and_the_call_is_whole():
    known, argument = walk(256)
    assert sorted(known.successors) == list(range(256))
    texts = {number: token for token, number in known.vocabulary.items()}
    token, written = known.vocabulary[END_OF_THOUGHT], []
    while texts[token := known.successors[token]] != EOS:
        written.append(texts[token])
    expected = (
        f'\n\n<{DSML}tool_calls>\n<{DSML}invoke name="{NAME}">\n<{DSML}parameter name="text" string="true">{argument}'
    )
    expected += f"</{DSML}parameter>\n</{DSML}invoke>\n</{DSML}tool_calls>"
    assert "".join(written) == spelled(expected)
    assert len(argument.split()) > 100
    assert all(spelled(character) in known.vocabulary for character in CHARACTERS)


@pytest.mark.parametrize(
    ("calls", "right"),
    [
        ({0: (NAME, '{"text": "a"}')}, True),
        ({0: (NAME, '{"text": "a')}, False),
        ({0: (NAME, "{}")}, False),
        ({0: ("tool_001", '{"text": "a"}')}, False),
        ({0: (NAME, '{"text": "a"}'), 1: (NAME, '{"text": "a"}')}, False),
        ({}, False),
    ],
)
def test_a_call_is_well_formed_or_not(calls, right):
    assert TimedAnswer(0.1, 0.2, 9, calls, "tool_calls").well_formed(NAME) is right


def test_the_tools_are_those_of_the_grammar():
    names = [tool["function"]["name"] for tool in tool_strict.tools(3)]
    assert names == [NAME, "tool_001", "tool_002"]
    assert json.dumps(tool_strict.tools(1)).count("tool_000") == 1
