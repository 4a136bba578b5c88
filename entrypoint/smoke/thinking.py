"""Check the thinking modes: reasoning and content are separate, in one answer and in a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..client.answers import Reply
from ..client.vllm import VllmClient
from .context import Context
from .outcome import Outcome, failed, passed, quoted, skipped

TAGS = ("<think>", "</think>")
PARSER = "serve with --reasoning-parser deepseek_v4"
TOKENIZER = "serve with --tokenizer-mode deepseek_v4"
UNPLANNED = "and no plan shows whether it should"
TRAP = (
    "a client that reads only content shows nothing: read reasoning, allow more tokens,"
    ' or send chat_template_kwargs {"thinking": false}'
)


def mode(name: str) -> Callable[[VllmClient, Context], Awaitable[Outcome]]:
    """Return the check of one mode of `prompts.toml`."""

    async def check(client: VllmClient, context: Context) -> Outcome:
        if reason := _not_here(context):
            return skipped(reason)
        prompts, modes = context.prompts["thinking"], context.prompts["thinking"]["modes"]
        reply = await client.chat(prompts["question"], _room(context), **modes[name])
        if name == "chat":
            return (
                _unwanted_reasoning(reply)
                or _answered(context, reply)
                or _passed(reply, f"no reasoning, {quoted(reply.content)}")
            )
        plain = await client.chat(prompts["question"], 1, **modes["chat"])
        wrong = _mode_ignored(context, reply, plain.prompt_tokens) or _leaks(reply.content, reply.reasoning)
        summary = f"{_summary(reply.content, reply.reasoning)}, {reply.tokens} tokens"
        return wrong or _answered(context, reply) or _passed(reply, summary)

    return check


async def streamed(client: VllmClient, context: Context) -> Outcome:
    """In mode high, a stream has reasoning first, then content, and neither leaks into the other."""
    if reason := _not_here(context):
        return skipped(reason)
    prompts = context.prompts["thinking"]
    stream = await client.stream(prompts["question"], _room(context), **prompts["modes"]["high"])
    kinds = [kind for kind, _ in stream.pieces]
    reasoning, content = stream.text("reasoning"), stream.text("content")
    if not reasoning and context.settings is None and not any(tag in content for tag in TAGS):
        return skipped(f"the stream has no reasoning, {UNPLANNED}")
    if kinds != sorted(kinds, reverse=True):
        return failed("reasoning came after content", PARSER)
    wrong = _leaks(content, reasoning) or _answered(context, stream.whole())
    return wrong or passed(f"{_summary(content, reasoning)}, in {len(kinds)} pieces", pieces=len(kinds))


async def empty_content(client: VllmClient, context: Context) -> Outcome:
    """With few tokens allowed, thinking takes them all: only reasoning comes back, with finish_reason `length`."""
    if reason := _not_here(context):
        return skipped(reason)
    prompts = context.prompts["thinking"]
    reply = await client.chat(prompts["question"], prompts["trap-tokens"], **prompts["modes"]["high"])
    if not reply.reasoning and context.settings is None:
        return skipped(f"the answer has no reasoning, {UNPLANNED}")
    if reply.content or not reply.reasoning or reply.finish != "length":
        return failed(
            f"{reply.tokens} tokens gave reasoning {quoted(reply.reasoning, 24)} and content"
            f" {quoted(reply.content, 24)} (finish_reason {reply.finish})",
            PARSER,
        )
    return passed(f"{reply.tokens} tokens, all reasoning, content empty, finish_reason length: {TRAP}")


def _not_here(context: Context) -> str:
    return "served without --reasoning-parser" if context.lacks("reasoning-parser") else ""


def _room(context: Context) -> int:
    """Return the output tokens that thinking may take: half the context at most."""
    most = int(context.prompts["thinking"]["endless-tokens" if context.record.constructed else "max-tokens"])
    return min(most, context.context_length // 2) if context.context_length else most


def _unwanted_reasoning(reply: Reply) -> Outcome | None:
    if not reply.reasoning:
        return None
    return failed(f"the answer has reasoning although thinking is off: {quoted(reply.reasoning)}", TOKENIZER)


def _mode_ignored(context: Context, reply: Reply, plain_tokens: int) -> Outcome | None:
    """Judge by the prompt's length: every thinking mode adds a paragraph before the conversation."""
    if reply.prompt_tokens > plain_tokens:
        return None
    if context.settings is None and not reply.reasoning:
        return skipped(f"the chat template has no thinking, {UNPLANNED}")
    lengths = f"the prompt has {reply.prompt_tokens} tokens with this mode and {plain_tokens} without thinking"
    return failed(f"{lengths}: the mode did not reach the model", TOKENIZER)


def _leaks(content: str, reasoning: str) -> Outcome | None:
    leaked = [tag for tag in TAGS if tag in content or tag in reasoning]
    if leaked:
        return failed(f"the answer has {leaked[0]} as text", PARSER)
    if not reasoning:
        return failed(f"the answer has no reasoning, and content is {quoted(content)}", PARSER)
    return None


def _answered(context: Context, reply: Reply) -> Outcome | None:
    """Judge the answer; it may be missing if reasoning took every token, and wrong if the weights are constructed."""
    prompts = context.prompts["thinking"]
    endless = not reply.content and reply.reasoning and reply.finish == "length"
    if prompts["answer"] in reply.content or endless or context.record.constructed:
        return None
    if not reply.content:
        return failed(f"no content, and finish_reason {reply.finish}", PARSER)
    return failed(
        f"the question was {prompts['question']!r}, the answer {quoted(reply.content)}",
        "the weights or the kernels are wrong: `dsv4 weights verify`, `dsv4 patch verify`",
    )


def _passed(reply: Reply, summary: str) -> Outcome:
    return passed(summary, prompt_tokens=reply.prompt_tokens, output_tokens=reply.tokens)


def _summary(content: str, reasoning: str) -> str:
    answer = quoted(content, 24) if content else "no content yet (all tokens went into reasoning)"
    return f"{len(reasoning)} characters of reasoning, then {answer}"
