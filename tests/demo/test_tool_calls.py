"""
DeepSeek-V4's tool calls on the wire: patched vLLM on this CPU, drafting by n-grams, and the SDKs that clients use.

The model writes what the test tells it (`tests/support/echo_model.py`), so the truth is known and vLLM's parser has to
find it. One server for all, which is asked for all turns at once: a step of many requests costs as much as one of one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from dsv4_serve.demo.patched import patched_vllm
from tests.support import echo_model
from tests.support.tool_calls import Answer, block, call, ids_of
from tests.support.vllm_servers import started

pytestmark = pytest.mark.slow

COUNT = {"$ref": "#/$defs/count"}
SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "limit": COUNT, "text": {"type": "string"}},
    "$defs": {"count": {"type": "integer"}},
}
NAMES = ("read_file", "write_file")
AT_ONCE = 16


@dataclass(frozen=True)
class Turn:
    """What the model writes; `max_tokens` cuts it after the text `until`."""

    thought: str = ""
    content: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    until: str = ""

    @property
    def text(self) -> str:
        calls = [
            call(name, *((key, str(isinstance(v, str)).lower(), str(v)) for key, v in arguments.items()))
            for name, arguments in self.calls
        ]
        return (f"{self.thought}</think>" if self.thought else "") + self.content + (block(*calls) if calls else "")

    @property
    def max_tokens(self) -> int:
        before, found, after = self.text.partition(self.until) if self.until else (self.text, "", "")
        return len(ids_of(before + found)) + (0 if after else 1)  # the end of the turn is a token


READ = ("read_file", {"path": "/srv/日本語.txt", "limit": 20})
WRITE = ("write_file", {"path": "/srv/chat.jinja", "text": "{{ 'a' }}</think>\n  <b>\"€\"</b> 🚢"})
LONG = ("write_file", {"path": "/srv/list", "text": "\n".join(map(str, range(40)))})
TURNS = {
    "one": Turn(content="I will look.", calls=(READ,)),
    "two in parallel": Turn(calls=(READ, WRITE)),
    "after a thought": Turn(thought="The user wants the file.", content="One moment.", calls=(READ,)),
}
CUT = {
    "in an argument": Turn(calls=(LONG,), until="\n17"),
    "between arguments": Turn(calls=(LONG,), until="parameter>\n"),
}


@dataclass
class Received:
    """`pieces` are those of the arguments, as a stream brought them."""

    answer: Answer
    pieces: list[str]


@dataclass(frozen=True)
class Clients:
    openai: Any
    anthropic: Any


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    from openai import DefaultHttpxClient, OpenAI  # not at the top: a second in every process of a run

    anthropic = pytest.importorskip("anthropic", reason="the Anthropic SDK, which vLLM requires, is not installed")
    folder = tmp_path_factory.mktemp("echo")
    model = echo_model.write_checkpoint(folder / "model")
    flags = ("--max-model-len", "4096", "--max-num-seqs", str(AT_ONCE))
    flags += ("--tool-strict-level", "auto")  # no grammar: the text is the model's own
    with started(model, folder / "log", *flags, tree=patched_vllm(folder)) as server:
        url = server.endpoint.url
        with (
            OpenAI(base_url=f"{url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False)) as openai,
            anthropic.Anthropic(
                base_url=url, api_key="none", http_client=anthropic.DefaultHttpxClient(trust_env=False)
            ) as messages,
        ):
            yield Clients(openai, messages)


def chat(clients: Clients, turn: Turn, streamed: bool) -> Received:
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]
    request: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": echo_model.message(turn.text)}],
        "tools": tools,
        "max_tokens": turn.max_tokens,
        "extra_body": {"chat_template_kwargs": {"thinking": bool(turn.thought)}},
    }
    completions = clients.openai.chat.completions
    pieces: list[str] = []
    thought = ""
    if streamed:
        with completions.stream(**request) as stream:
            for event in stream:
                if event.type == "chunk" and event.chunk.choices:
                    thought += getattr(event.chunk.choices[0].delta, "reasoning", None) or ""
                elif event.type == "tool_calls.function.arguments.delta":
                    pieces.append(event.arguments_delta)
            choice = _final(stream).choices[0]
    else:
        choice = completions.create(**request).choices[0]
        thought = getattr(choice.message, "reasoning", None) or ""
    calls = [(one.function.name, one.function.arguments) for one in choice.message.tool_calls or ()]
    return Received(Answer(thought, choice.message.content or "", calls, choice.finish_reason), pieces)


def _final(stream: Any) -> Any:
    """The SDK raises for an answer that was cut, and hands over what there is."""
    from openai import LengthFinishReasonError

    try:
        return stream.get_final_completion()
    except LengthFinishReasonError as cut:
        return cut.completion


def responses(clients: Clients, turn: Turn, streamed: bool) -> Received:
    request: dict[str, Any] = {
        "model": "demo",
        "input": echo_model.message(turn.text),
        "tools": [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in NAMES],
        "max_output_tokens": turn.max_tokens,
        "reasoning": {"effort": "high" if turn.thought else "none"},
    }
    pieces: list[str] = []
    reply: Any = None
    if streamed:
        with clients.openai.responses.stream(**request) as stream:
            for event in stream:
                if event.type == "response.function_call_arguments.delta":
                    pieces.append(event.delta)
                elif event.type in ("response.completed", "response.incomplete"):
                    reply = event.response
    else:
        reply = clients.openai.responses.create(**request)
    assert reply, "the stream broke off"
    answer = Answer(finish=reply.status)
    for item in reply.output:
        if item.type == "reasoning":
            answer.reasoning += item.content[0].text
        elif item.type == "message":
            answer.content += "".join(part.text for part in item.content)
        else:
            answer.calls.append((item.name, item.arguments))
    return Received(answer, pieces)


def messages(clients: Clients, turn: Turn, streamed: bool) -> Received:
    request: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": echo_model.message(turn.text)}],
        "tools": [{"name": name, "input_schema": SCHEMA} for name in NAMES],
        "max_tokens": turn.max_tokens,
        "thinking": {"type": "adaptive" if turn.thought else "disabled"},
    }
    pieces: list[str] = []
    if streamed:
        with clients.anthropic.messages.stream(**request) as stream:
            pieces = [event.partial_json for event in stream if event.type == "input_json"]
            reply = stream.get_final_message()
    else:
        reply = clients.anthropic.messages.create(**request)
    answer = Answer(finish=reply.stop_reason)
    for part in reply.content:
        answer.reasoning += getattr(part, "thinking", "")
        answer.content += getattr(part, "text", "")
        if part.type == "tool_use":
            answer.calls.append((part.name, json.dumps(part.input)))
    return Received(answer, pieces)


ROUTES = {
    "chat": (chat, "tool_calls", "length"),
    "messages": (messages, "tool_use", "max_tokens"),
    "responses": (responses, "completed", "incomplete"),
}


@pytest.fixture(scope="module")
def received(clients: Clients) -> Iterator[Callable[..., Any]]:
    """Return what came of a turn by route, name and whether it was streamed, or of what was said by name and the latter."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        turns = itertools.product(ROUTES, TURNS | CUT, WAYS)
        asked = {one: pool.submit(ROUTES[one[0]][0], clients, (TURNS | CUT)[one[1]], one[2]) for one in turns}
        said = {one: pool.submit(_answer, clients, *one) for one in itertools.product(SAID, WAYS)}
        yield lambda *one: (asked | said)[one].result()


WAYS = (False, True)
each_route = pytest.mark.parametrize("route", ROUTES)
each_way = pytest.mark.parametrize("streamed", WAYS, ids=["full", "streamed"])


@each_way
@pytest.mark.parametrize("name", TURNS)
@each_route
def test_a_client_receives_what_the_model_wrote(
    received: Callable[..., Received], route: str, name: str, streamed: bool
) -> None:
    turn = TURNS[name]
    _, whole, _ = ROUTES[route]
    came = received(route, name, streamed)
    answer = came.answer
    assert tuple((tool, json.loads(arguments)) for tool, arguments in answer.calls) == turn.calls
    assert answer.content == (f"{turn.content}\n\n" if turn.content else "")  # the line break belongs to the block
    assert (answer.reasoning, answer.finish) == (turn.thought, whole)
    if streamed:
        assert "".join(came.pieces) == "".join(json.dumps(a, ensure_ascii=False) for _, a in turn.calls)


@each_way
@pytest.mark.parametrize("name", CUT)
@each_route
def test_a_call_that_max_tokens_cut_is_no_success(
    received: Callable[..., Received], route: str, name: str, streamed: bool
) -> None:
    turn = CUT[name]
    _, _, cut = ROUTES[route]
    came = received(route, name, streamed)
    answer = came.answer
    assert (answer.reasoning, answer.content, answer.finish) == ("", "", cut)
    if route == "messages" and not streamed:
        assert answer.calls == []  # a block of it holds an object, so half a call has no form there
        return
    ((tool, arguments),) = answer.calls
    text = "".join(came.pieces) if streamed else arguments
    if streamed and name == "in an argument":  # a short call may come at once where the client is slow to read
        assert len(came.pieces) > 2
    ((called, truth),) = turn.calls
    assert tool == called
    assert '{"path": "/srv/list"' in text
    assert json.dumps(truth).startswith(text)
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


ONE = block(call("read_file", ("path", "true", "/srv/a")))
SAID = {
    "a call without tools": (ONE, None, "auto"),
    "a call with tool_choice none": (ONE, NAMES, "none"),
    "a tool that is not declared": (block(call("delete")), NAMES, "auto"),
    "an invoke line in prose": ('Write <｜DSML｜invoke name="read_file"> and its parameters.', NAMES, "auto"),
    "tags of thinking": ("Of <think> and </think>, the second ends it.", NAMES, "auto"),
    "nothing": ("", NAMES, "auto"),
}


@each_way
@pytest.mark.parametrize("name", SAID)
def test_what_is_no_call_is_text(received: Callable[..., Any], name: str, streamed: bool) -> None:
    said = received(name, streamed)
    assert (said.content or "", said.tool_calls or []) == (SAID[name][0], [])


def _answer(clients: Clients, name: str, streamed: bool) -> Any:
    text, names, choice = SAID[name]
    return _said(clients, text, streamed, names, tool_choice=choice)


def _said(clients: Clients, text: str, streamed: bool, names: tuple[str, ...] | None = NAMES, **options: Any) -> Any:
    request = _request(text, names) | (options if names else {})
    if not streamed:
        return clients.openai.chat.completions.create(**request).choices[0].message
    with clients.openai.chat.completions.stream(**request) as stream:
        return stream.get_final_completion().choices[0].message


def _request(text: str, names: tuple[str, ...] | None = NAMES) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in names or ()]
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": echo_model.message(text)}],
        "max_tokens": 300,
        "extra_body": {"chat_template_kwargs": {"thinking": False}, "return_token_ids": True},
        **({"tools": tools} if tools else {}),
    }


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "read_file"}}])
@each_way
def test_a_forced_call_is_a_call(clients: Clients, streamed: bool, choice: Any) -> None:
    """vLLM's grammar lets the model write what it would have written."""
    message = _said(clients, ONE, streamed, tool_choice=choice)
    (one,) = message.tool_calls
    assert (one.function.name, json.loads(one.function.arguments)) == ("read_file", {"path": "/srv/a"})


def test_the_next_prompt_begins_with_what_was_written(clients: Clients) -> None:
    """So most of it comes from the prefix cache, as vLLM counts it."""
    request = _request(TURNS["one"].text)
    first = clients.openai.chat.completions.create(**request)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "ok"}
    hits = _cache_hits(clients)
    history = [*request["messages"], message, result]
    second = clients.openai.chat.completions.create(**request | {"messages": history, "max_tokens": 1})
    written = first.prompt_token_ids + first.choices[0].token_ids
    assert second.prompt_token_ids[: len(written)] == written
    assert _cache_hits(clients) - hits > len(first.prompt_token_ids) / 2


def _cache_hits(clients: Clients) -> float:
    lines = clients.openai._client.get(str(clients.openai.base_url).replace("v1/", "metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:prefix_cache_hits_total"))
