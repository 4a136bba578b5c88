"""Run every check, one after the other, within one deadline; no failure hides another."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from ..client.errors import Refused, Unreachable
from ..client.vllm import VllmClient
from . import basics, concurrency, needles, structure, thinking, tool_history, tools
from .context import Context
from .outcome import Outcome, failed, skipped

log = logging.getLogger(__name__)

Check = Callable[[VllmClient, Context], Awaitable[Outcome]]

CHECKS: Mapping[str, Check] = {
    "models": basics.models,
    "chat": basics.chat,
    "streaming": basics.streaming,
    "stop": basics.stop,
    "logprobs": basics.logprobs,
    "thinking-chat": thinking.mode("chat"),
    "thinking-high": thinking.mode("high"),
    "thinking-max": thinking.mode("max"),
    "thinking-stream": thinking.streamed,
    "empty-content": thinking.empty_content,
    "tool-call": structure.tool_call,
    "tool-stream": tools.streamed,
    "tool-thinking": tools.thinking,
    "tool-truncated": tools.truncated,
    "tool-gaps": tools.gaps,
    "tool-tags": tools.tags,
    "tool-ref": tools.ref,
    "tool-parallel": tools.parallel,
    "tool-history": tool_history.history,
    "json-schema": structure.json_schema,
    "needles": needles.needles,
    "parallel": concurrency.parallel,
    "acceptance": concurrency.acceptance,
}


async def run(client: VllmClient, context: Context, seconds: float, skip: Collection[str]) -> list[Outcome]:
    """Return every check's outcome, in order, within `seconds` for all of them."""
    until = time.monotonic() + seconds
    outcomes = []
    for name, check in CHECKS.items():
        began = time.monotonic()
        remaining = until - began
        if name in skip:
            outcome = skipped("--skip")
        elif remaining <= 0:
            outcome = failed(
                f"not run: the {seconds:.0f} s of --timeout were used up", "raise --timeout, or --skip slow checks"
            )
        else:
            outcome = await _run_check(client, context, check, remaining)
        outcomes.append(dataclasses.replace(outcome, name=name, seconds=time.monotonic() - began))
        log.info(f"{outcome.verdict:12} {name}")
    return outcomes


async def _run_check(client: VllmClient, context: Context, check: Check, seconds: float) -> Outcome:
    """Run one check; it fails if it takes longer than `seconds`, or gets no answer or an error."""
    try:
        async with asyncio.timeout(seconds):
            return await check(client, context)
    except TimeoutError:
        return failed(
            f"not finished within the {seconds:.0f} s that remained of --timeout",
            "see `dsv4 probe live`, or raise --timeout",
        )
    except Unreachable as error:
        return failed(f"no answer: {error}", "see `dsv4 probe live` and vLLM's log")
    except Refused as error:
        return failed(f"refused: {error.with_reason()}", "see vLLM's log")
