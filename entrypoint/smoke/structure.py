"""Check structured answers: a tool call with its result, and JSON by a schema."""

from __future__ import annotations

import json
from typing import Any

from ..client.errors import Refused
from ..client.vllm import VllmClient
from ..validation import sentence
from .context import Context
from .outcome import Outcome, failed, passed, quoted, skipped

PARSER = "serve with --enable-auto-tool-choice --tool-call-parser deepseek_v4"
NO_PARSER = "--tool-call-parser to be set"
"""The end of vLLM 0.32.0's error for tools (`renderers/online_renderer.py`)."""


async def tool_call(client: VllmClient, context: Context) -> Outcome:
    """A question makes the model call a tool; the tool's result makes it answer."""
    if context.lacks("tool-call-parser"):
        return skipped("served without --tool-call-parser")
    prompts, mode = context.prompts["tool"], context.prompts["thinking"]["modes"]["chat"]
    tools = [{"type": "function", "function": prompts["function"]}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompts["question"]}]
    try:
        reply = await client.chat(messages, prompts["max-tokens"], tools=tools, tool_choice="auto", **mode)
    except Refused as error:
        if NO_PARSER in error.reason:
            return skipped("served without --tool-call-parser")
        raise
    constructed = bool(context.record.constructed)
    if problem := _call_problem(reply.tool_calls, prompts, any_value=constructed):
        return failed(f"{problem}; content is {quoted(reply.content)}, finish_reason {reply.finish}", PARSER)
    call = reply.tool_calls[0]
    messages += [
        {"role": "assistant", "content": reply.content, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": prompts["result"]},
    ]
    back = await client.chat(messages, prompts["max-tokens"], tools=tools, tool_choice="auto", **mode)
    if prompts["answer"] not in back.content and not (constructed and back.content):
        return failed(f"the tool returned {prompts['result']}, the answer is {quoted(back.content)}", PARSER)
    return passed(f"{call['function']['name']}({call['function']['arguments']}), then {quoted(back.content)}")


def _call_problem(calls: Any, prompts: dict[str, Any], *, any_value: bool) -> str:
    """Return what is wrong with tool calls, or nothing; the argument may be anything if the weights are constructed."""
    if not calls:
        return "no tool was called"
    try:
        function = calls[0]["function"]
        arguments = json.loads(function["arguments"])
        value = str(arguments[prompts["argument"]])
        name, number = str(function["name"]), str(calls[0]["id"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return f"a tool call without id, name or readable arguments: {quoted(str(calls[0]))}"
    right = any_value or prompts["value"].lower() in value.lower()
    if name != prompts["function"]["name"] or not number or not right:
        return f"the wrong call was made: {quoted(str(function))}"
    return ""


async def json_schema(client: VllmClient, context: Context) -> Outcome:
    """An answer under a JSON schema matches that schema, and answers the question."""
    from pydantic import BaseModel, ConfigDict, ValidationError

    class Ship(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

        name: str
        launched: int
        sails: bool

    prompts = context.prompts["schema"]
    form = {"name": "ship", "schema": Ship.model_json_schema(), "strict": True}
    reply = await client.chat(
        prompts["question"],
        prompts["max-tokens"],
        response_format={"type": "json_schema", "json_schema": form},
        **context.prompts["thinking"]["modes"]["chat"],
    )
    if context.record.constructed and reply.finish == "length":
        return skipped(context.record.constructed)
    try:
        ship = Ship.model_validate_json(reply.content)
    except ValidationError as error:
        return failed(
            f"{quoted(reply.content)} does not match the schema: {sentence(error)} (finish_reason {reply.finish})",
            "check in vLLM's log that structured outputs are on; a stray token means a garbled answer",
        )
    expected = Ship(name=prompts["name"], launched=prompts["launched"], sails=prompts["sails"])
    if ship != expected and not context.record.constructed:
        return failed(
            f"the answer matches the schema, but is {ship!r} instead of {expected!r}",
            "`dsv4 weights verify`, `dsv4 patch verify`",
        )
    return passed(quoted(reply.content))
