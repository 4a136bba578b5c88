"""
Check tool calls as agents make them: streamed, after thinking, cut, long, with tags, under `$ref`, in parallel.

A fault of the protocol fails a check. A model that makes no call shows nothing, so the check is then inconclusive.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..client.answers import Reply, Stream
from ..client.errors import Refused
from ..client.vllm import VllmClient
from . import calls
from .context import Context
from .outcome import Outcome, failed, inconclusive, passed, quoted, skipped
from .structure import NO_PARSER, PARSER
from .thinking import UNPLANNED

Check = Callable[[VllmClient, Context], Awaitable[Outcome]]
PATCHES = "`dsv4 patch verify` tells whether vLLM has the patches of this version"
ASK_AGAIN = "ask again; `dsv4 eval tools` tells how often the model calls"
WITHOUT = "served without --tool-call-parser"


@dataclass(frozen=True)
class ToolQuestion:
    """One question with its tools, and the mode of thinking."""

    client: VllmClient
    messages: str | Sequence[Mapping[str, Any]]
    functions: Sequence[Mapping[str, Any]]
    tokens: int
    more: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """The names of the tools."""
        return [function["name"] for function in self.functions]

    @property
    def body(self) -> dict[str, Any]:
        """What the request has beside messages and tokens."""
        tools = [{"type": "function", "function": function} for function in self.functions]
        return {"tools": tools, "tool_choice": "auto", **self.more}

    async def full(self, tokens: int | None = None) -> Reply:
        """Return the answer without streaming."""
        return await self.client.chat(self.messages, tokens or self.tokens, **self.body)

    async def stream(self, tokens: int | None = None) -> Stream:
        """Return the answer as a stream whose chunks count tokens."""
        options = {"include_usage": True, "continuous_usage_stats": True}
        return await self.client.stream(self.messages, tokens or self.tokens, **self.body, stream_options=options)

    async def both(self) -> tuple[Reply, Stream, Outcome | None]:
        """Return the answer both ways, and the outcome where one is at fault or they differ."""
        full, stream = await self.full(), await self.stream()
        if problem := calls.fault(full, self.names):
            return full, stream, failed(f"without streaming: {problem}", f"{PARSER}; {PATCHES}")
        if problem := calls.stream_fault(stream, self.names):
            return full, stream, failed(f"streamed: {problem}", f"{PARSER}; {PATCHES}")
        if calls.meaning(full) == calls.meaning(stream.whole()):
            return full, stream, None if full.tool_calls else no_call(full)
        if calls.meaning(await self.full()) != calls.meaning(full):
            return full, stream, inconclusive("the same greedy request was answered with other calls each time")
        seen = f"{shown(full)} without streaming, {shown(stream.whole())} streamed"
        return full, stream, failed(seen, PATCHES)


def with_tools(check: Check) -> Check:
    """Skip a check where the replica parses no tool calls."""

    @functools.wraps(check)
    async def checked(client: VllmClient, context: Context) -> Outcome:
        if context.lacks("tool-call-parser"):
            return skipped(WITHOUT)
        try:
            return await check(client, context)
        except Refused as error:
            if NO_PARSER in error.reason:
                return skipped(WITHOUT)
            raise

    return checked


def request(client: VllmClient, context: Context, name: str, function: str = "", mode: str = "chat") -> ToolQuestion:
    """Return the request of one check in `prompts.toml`; `function` empty is the water level."""
    prompts, modes = context.prompts, context.prompts["thinking"]["modes"]
    chosen = prompts["tools"]["functions"][function] if function else prompts["tool"]["function"]
    prompt = prompts["tools"][name] if name else prompts["tool"]
    tokens = prompt.get("max-tokens") or prompts["tools"]["max-tokens"]
    tokens = prompts["tools"]["thinking-tokens"] if mode != "chat" else tokens
    return ToolQuestion(client, prompt["question"], [chosen], tokens, modes[mode])


def no_call(reply: Reply) -> Outcome:
    """Return the outcome of an answer without a call."""
    return inconclusive(f"no call; content is {quoted(reply.content)}, finish_reason {reply.finish}", ASK_AGAIN)


def shown(reply: Reply) -> str:
    """Return the calls of an answer for a report."""
    return "; ".join(
        f"{call['function']['name']}({quoted(call['function']['arguments'])})" for call in reply.tool_calls
    )


@with_tools
async def streamed(client: VllmClient, context: Context) -> Outcome:
    """A streamed call is the one that comes without streaming."""
    full, stream, wrong = await request(client, context, "").both()
    return wrong or passed(f"{shown(full)}, the same in {len(stream.deltas)} deltas", deltas=len(stream.deltas))


@with_tools
async def thinking(client: VllmClient, context: Context) -> Outcome:
    """After thinking, a call is a call, and the thought stays in reasoning."""
    if context.lacks("reasoning-parser"):
        return skipped("served without --reasoning-parser")
    question = request(client, context, "", mode="high")
    reply = await question.full()
    if problem := calls.fault(reply, question.names):
        return failed(problem, f"{PARSER}; {PATCHES}")
    if not reply.tool_calls:
        return no_call(reply)
    if not reply.reasoning and context.settings is None:
        return skipped(f"the answer has no reasoning, {UNPLANNED}")
    if not reply.reasoning:
        return failed(f"a call without reasoning: {shown(reply)}", "serve with --reasoning-parser deepseek_v4")
    return passed(f"{len(reply.reasoning)} characters of reasoning, then {shown(reply)}")


@with_tools
async def truncated(client: VllmClient, context: Context) -> Outcome:
    """A call that max_tokens cuts ends with finish_reason `length`, streamed or not."""
    question = request(client, context, "")
    full = await question.full()
    if not full.tool_calls:
        return no_call(full)
    places = sorted({max(1, int(full.tokens * share)) for share in context.prompts["tools"]["cuts"]})
    for tokens in places:
        cut, stream = await question.full(tokens), (await question.stream(tokens)).whole()
        for how, end in (("without streaming", cut), ("streamed", stream)):
            where = f"cut after {tokens} of {full.tokens} tokens, {how}:"
            if end.finish != "length" and end.tokens >= tokens:
                seen = f"{where} finish_reason is {end.finish}, with {shown(end) or 'no call'}"
                return failed(seen, f"a client runs half a call; {PATCHES}")
            if problem := calls.fault(end, question.names):
                return failed(f"{where} {problem}", PATCHES)
    return passed(f"cut after {', '.join(map(str, places))} of {full.tokens} tokens: length", cuts=places)


@with_tools
async def gaps(client: VllmClient, context: Context) -> Outcome:
    """A long argument arrives as it is generated."""
    prompts = context.prompts["tools"]["gaps"]
    question = request(client, context, "gaps", "write_file")
    stream = await question.stream()
    whole = stream.whole()
    if whole.finish != "length" and (problem := calls.stream_fault(stream, question.names)):
        return failed(problem, PATCHES)
    if not whole.tool_calls:
        return no_call(whole)
    gap = calls.largest_gap(stream.deltas)
    if gap is None:
        return skipped("no chunk of the stream counts tokens (continuous_usage_stats)")
    if whole.tokens < prompts["least"]:
        reason = f"the whole call has {whole.tokens} tokens, too few to show a gap"
        return skipped(context.record.constructed) if context.record.constructed else inconclusive(reason, ASK_AGAIN)
    tokens, seconds = gap
    figures = {"call_tokens": whole.tokens, "largest_gap_tokens": tokens, "largest_gap_s": round(seconds, 3)}
    seen = f"{whole.tokens} tokens, at most {tokens} tokens and {seconds:.2f} s between two deltas"
    if tokens > prompts["most-gap"]:
        return failed(f"{seen}; {prompts['most-gap']} are allowed", f"clients run into timeouts; {PATCHES}", **figures)
    return passed(seen, **figures)


@with_tools
async def tags(client: VllmClient, context: Context) -> Outcome:
    """Thinking tags inside an argument are text."""
    prompts = context.prompts["tools"]["tags"]
    question = request(client, context, "tags", "save_note")
    full, stream = await question.full(), (await question.stream()).whole()
    values = {"without streaming": _value(full, prompts["argument"]), "streamed": _value(stream, prompts["argument"])}
    for how, reply in (("without streaming", full), ("streamed", stream)):
        if problem := calls.fault(reply, question.names):
            return failed(f"{how}: {problem}", PATCHES)
        if reply.tool_calls and values[how] is None:
            return failed(f"{how}: {shown(reply)} lacks {prompts['argument']}", PATCHES)
    if not full.tool_calls or not stream.tool_calls:
        return no_call(stream if full.tool_calls else full)
    if context.record.constructed:
        return skipped(context.record.constructed)
    return _tags_kept(values, prompts["text"], prompts["tags"])


def _tags_kept(values: Mapping[str, Any], text: str, tags: Sequence[str]) -> Outcome:
    """Judge the argument of both answers to a request that asks for `text`."""
    kept = {how: [tag for tag in tags if tag in str(value)] for how, value in values.items()}
    worst = min(kept, key=lambda how: len(kept[how]))
    seen = f"{worst}, the argument is {quoted(str(values[worst]))}"
    deleted = _bare(values[worst]) == _bare(functools.reduce(lambda left, tag: left.replace(tag, ""), tags, text))
    if deleted or len({len(tags) for tags in kept.values()}) > 1:
        return failed(f"{seen}: tags are missing", PATCHES)
    if len(kept[worst]) < len(tags):
        return inconclusive(f"{seen}: the model wrote it without the tags", ASK_AGAIN)
    return passed(f"{quoted(str(values[worst]))}, streamed or not")


@with_tools
async def ref(client: VllmClient, context: Context) -> Outcome:
    """An integer whose schema is behind `$ref` stays an integer."""
    question = request(client, context, "ref", "open_gate")
    full, _, wrong = await question.both()
    if wrong:
        return wrong
    value = _value(full, context.prompts["tools"]["ref"]["argument"])
    if not isinstance(value, int) or isinstance(value, bool):
        return failed(
            f"{shown(full)}: {value!r} is not an integer, and its schema says integer behind $ref",
            f'either the parser made it text or the model wrote it so (string="true"); {PATCHES}',
        )
    return passed(shown(full))


@with_tools
async def parallel(client: VllmClient, context: Context) -> Outcome:
    """Two calls in one answer have ids, indexes and arguments of their own."""
    full, _, wrong = await request(client, context, "parallel").both()
    if wrong:
        return wrong
    if len(full.tool_calls) < 2:
        reason = f"one call only: {shown(full)}"
        return skipped(context.record.constructed) if context.record.constructed else inconclusive(reason, ASK_AGAIN)
    return passed(f"{len(full.tool_calls)} calls: {shown(full)}", calls=len(full.tool_calls))


def _value(reply: Reply, name: str) -> Any:
    return (calls.arguments(reply.tool_calls[0]) or {}).get(name) if reply.tool_calls else None


def _bare(value: Any) -> str:
    return "".join(character for character in str(value) if character.isalnum())
