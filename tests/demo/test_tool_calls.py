"""
DeepSeek-V4's tool calls on the wire: patched vLLM on this CPU, drafting by n-grams, and the SDKs that clients use.

The model writes what the test tells it (`tests/support/echo_model.py`), so the truth is known and vLLM's parser has to
find it. One server for all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from openai import DefaultHttpxClient, OpenAI

from dsv4_serve.demo.patched import patched_vllm
from tests.support import echo_model
from tests.support.tool_calls import Answer, block, call, ids_of
from tests.support.vllm_servers import started

pytestmark = pytest.mark.slow
anthropic = pytest.importorskip("anthropic", reason="the Anthropic SDK, which vLLM requires, is not installed")

COUNT = {"$ref": "#/$defs/count"}
SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "limit": COUNT, "text": {"type": "string"}},
    "$defs": {"count": {"type": "integer"}},
}
NAMES = ("read_file", "write_file")


@dataclass(frozen=True)
class Turn:
    """What the model writes; `shown` tokens of it are allowed, all by default."""

    thought: str = ""
    content: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    shown: int = 0

    @property
    def text(self) -> str:
        calls = [
            call(name, *((key, str(isinstance(v, str)).lower(), str(v)) for key, v in arguments.items()))
            for name, arguments in self.calls
        ]
        return (f"{self.thought}</think>" if self.thought else "") + self.content + (block(*calls) if calls else "")

    @property
    def allowed(self) -> int:
        return self.shown or echo_model.DISTANCE


READ = ("read_file", {"path": "/srv/日本語.txt", "limit": 20})
WRITE = ("write_file", {"path": "/srv/chat.jinja", "text": "{{ 'a' }}</think>\n  <b>\"€\"</b> 🚢"})
LONG = ("write_file", {"path": "/srv/list", "text": "\n".join(map(str, range(40)))})
TURNS = {
    "one": Turn(content="I will look.", calls=(READ,)),
    "two in parallel": Turn(calls=(READ, WRITE)),
    "cut short": Turn(calls=(LONG,), shown=80),
    "after a thought": Turn(thought="The user wants the file.", content="One moment.", calls=(READ,)),
}


@dataclass(frozen=True)
class Clients:
    openai: OpenAI
    anthropic: Any


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    folder = tmp_path_factory.mktemp("echo")
    model = echo_model.write_checkpoint(folder / "model")
    flags = ("--max-model-len", "4096", "--tool-strict-level", "auto")  # no grammar: the text is the model's own
    with started(model, folder / "log", *flags, tree=patched_vllm(folder)) as server:
        url = server.endpoint.url
        with (
            OpenAI(base_url=f"{url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False)) as openai,
            anthropic.Anthropic(
                base_url=url, api_key="none", http_client=anthropic.DefaultHttpxClient(trust_env=False)
            ) as messages,
        ):
            yield Clients(openai, messages)


def chat(clients: Clients, turn: Turn, streamed: bool) -> Answer:
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]
    request: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": echo_model.message(turn.text)}],
        "tools": tools,
        "max_tokens": turn.allowed,
        "extra_body": {"chat_template_kwargs": {"thinking": bool(turn.thought)}},
    }
    completions, thought = clients.openai.chat.completions, ""
    if streamed:
        with completions.stream(**request) as stream:
            for event in stream:
                if event.type == "chunk" and event.chunk.choices:
                    thought += getattr(event.chunk.choices[0].delta, "reasoning", None) or ""
            choice: Any = stream.get_final_completion().choices[0]
    else:
        choice = completions.create(**request).choices[0]
        thought = getattr(choice.message, "reasoning", None) or ""
    calls = [(one.function.name, one.function.arguments) for one in choice.message.tool_calls or ()]
    return Answer(thought, choice.message.content or "", calls, choice.finish_reason)


def responses(clients: Clients, turn: Turn, streamed: bool) -> Answer:
    request: dict[str, Any] = {
        "model": "demo",
        "input": echo_model.message(turn.text),
        "tools": [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in NAMES],
        "max_output_tokens": turn.allowed,
        "reasoning": {"effort": "high" if turn.thought else "none"},
    }
    arguments = ""
    if streamed:
        with clients.openai.responses.stream(**request) as stream:
            for event in stream:
                if event.type == "response.function_call_arguments.delta":
                    arguments += event.delta
                if event.type in ("response.completed", "response.incomplete"):
                    reply: Any = event.response
    else:
        reply = clients.openai.responses.create(**request)
    answer = Answer(finish=reply.status)
    for item in reply.output:
        if item.type == "reasoning":
            answer.reasoning += item.content[0].text
        elif item.type == "message":
            answer.content += "".join(part.text for part in item.content)
        else:
            answer.calls.append((item.name, item.arguments))
    assert not streamed or arguments == "".join(text for _, text in answer.calls)
    return answer


def messages(clients: Clients, turn: Turn, streamed: bool) -> Answer:
    request: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": echo_model.message(turn.text)}],
        "tools": [{"name": name, "input_schema": SCHEMA} for name in NAMES],
        "max_tokens": turn.allowed,
        "thinking": {"type": "adaptive" if turn.thought else "disabled"},
    }
    if streamed:
        with clients.anthropic.messages.stream(**request) as stream:
            reply = stream.get_final_message()
    else:
        reply = clients.anthropic.messages.create(**request)
    answer = Answer(finish=reply.stop_reason)
    for part in reply.content:
        answer.reasoning += getattr(part, "thinking", "")
        answer.content += getattr(part, "text", "")
        if part.type == "tool_use":
            answer.calls.append((part.name, json.dumps(part.input)))
    return answer


ROUTES = {
    "chat": (chat, "tool_calls", "length"),
    "messages": (messages, "tool_use", "max_tokens"),
    "responses": (responses, "completed", "incomplete"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["full", "streamed"])
@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_client_receives_what_the_model_wrote(clients: Clients, route: str, name: str, streamed: bool) -> None:
    turn = TURNS[name]
    ask, whole, cut = ROUTES[route]
    answer = ask(clients, turn, streamed)
    print(answer)
    if turn.shown:
        assert turn.shown < len(ids_of(turn.text))
        assert answer.finish == cut
    else:
        assert (answer.reasoning, answer.content.strip(), answer.finish) == (turn.thought, turn.content, whole)
        assert tuple((name, json.loads(arguments)) for name, arguments in answer.calls) == turn.calls
