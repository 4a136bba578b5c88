"""Run `dsv4 eval tools`: every scenario in N rounds against a replica, protocol and task scored apart."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import results
from ..client.answers import Reply
from ..client.endpoint import Endpoint
from ..client.errors import Refused
from ..client.vllm import VllmClient
from ..draft_schedule import alone
from ..errors import UsageError
from ..smoke import calls
from ..smoke.structure import NO_PARSER, PARSER
from . import pace, runs, tool_scenarios, tool_score
from .intervals import Share
from .progress import EvalProgress
from .served import ServedReplica
from .task import LONGEST_ANSWER, THINKING, TOOLS
from .task_request import ToolEvalRequest
from .tool_answers import ToolAnswers
from .tool_scenarios import Scenario
from .tool_score import Play

log = logging.getLogger(__name__)

PROMPT_TOKENS = 8192
"""For the longest conversation of a scenario, with all its tools."""
CHAT_TOKENS = 4096


@dataclass(frozen=True)
class ScoredRound:
    """One scenario in one round."""

    scenario: Scenario
    number: int
    streamed: bool
    played: Play
    turns: int
    cut: bool
    tokens: int


def evaluate(endpoint: Endpoint, served: ServedReplica, request: ToolEvalRequest) -> dict[str, Any]:
    """Run the scenarios, write the result, and return it with its path as `file`; empty after a dry run."""
    sampling: dict[str, Any] = {
        "max_tokens": request.max_tokens or _most_tokens(request.thinking, served.context),
        "temperature": request.temperature,
        "chat_template_kwargs": dict(THINKING[request.thinking]),
        "rounds": request.rounds,
    }
    subject = f"{TOOLS}-{request.thinking}-{served.model or served.name}"
    scenarios = tool_scenarios.read()[1][: request.limit]
    with runs.folder(request.out, subject, sampling, resume=request.resume, keep=not request.dry_run) as kept:
        answers = ToolAnswers(kept / runs.ANSWERS)
        try:
            planned = len(scenarios) * request.rounds
            begun = {(name, number) for name, number, _ in answers.known}
            progress = EvalProgress(planned, planned - len(begun), sampling["max_tokens"])
            log.info(progress.plan(pace.measured(request.out, request.concurrency, served.replica)))
            if request.dry_run:
                return {}
            client = VllmClient(endpoint.url, endpoint.key, served.name)
            runner = _Runner(client, sampling, answers, progress, asyncio.Semaphore(request.concurrency))
            scored = asyncio.run(_run(client, runner, scenarios, request.rounds))
        finally:
            answers.close()
        with (kept / runs.SAMPLES).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_sample(one), ensure_ascii=False) + "\n" for one in scored)
        body = {
            "subject": subject,
            "task": TOOLS,
            "thinking": request.thinking,
            "model": served.model,
            "drafts": alone(_settings(served)) if served.replica else None,
            "sampling": sampling,
            "limit": request.limit,
            "concurrency": request.concurrency,
            **summary(scored),
            "samples": str((kept / runs.SAMPLES).relative_to(request.out)),
            "replica": served.replica,
        }
        return {**body, "file": str(results.write(request.out, "eval", body))}


def _most_tokens(thinking: str, context: int) -> int:
    remaining = context - PROMPT_TOKENS
    if remaining < 1:
        raise UsageError(
            f"tools reserves {PROMPT_TOKENS} tokens for the prompt, but this replica's context is {context}; set the"
            " tokens of an answer with --max-tokens."
        )
    return min(remaining, CHAT_TOKENS if thinking == "chat" else LONGEST_ANSWER)


def _settings(served: ServedReplica) -> dict[str, Any]:
    return {name: setting["value"] for name, setting in served.replica.get("settings", {}).items()}


@dataclass
class _Runner:
    """What every scenario of one run needs."""

    client: VllmClient
    sampling: Mapping[str, Any]
    answers: ToolAnswers
    progress: EvalProgress
    free: asyncio.Semaphore

    async def run(self, scenarios: Sequence[Scenario], rounds: int) -> list[ScoredRound]:
        """Return every scenario in every round; the first error ends the run."""
        try:
            async with asyncio.TaskGroup() as group:
                pairs = [(scenario, number) for number in range(rounds) for scenario in scenarios]
                tasks = [group.create_task(self._one(scenario, number)) for scenario, number in pairs]
            return [task.result() for task in tasks]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _one(self, scenario: Scenario, number: int) -> ScoredRound:
        async with self.free:
            known = (scenario.name, number, 0) in self.answers.known
            scored = await self._play(scenario, number)
            if not known:
                self.progress.count(scored.tokens, cut=scored.cut)
            return scored

    async def _play(self, scenario: Scenario, number: int) -> ScoredRound:
        """Ask turn by turn; the turns that are known are not asked again."""
        replies: list[Reply] = []
        faults: list[str] = []
        while not (played := tool_score.play(scenario, replies, faults)).done:
            key = (scenario.name, number, len(replies))
            if key not in self.answers.known:
                began = time.monotonic()
                reply, fault = await self._ask(scenario, played.messages, number)
                self.answers.keep(key, reply, fault, time.monotonic() - began)
            reply, fault = self.answers.known[key]
            replies.append(reply)
            faults.append(fault)
        tokens = sum(reply.tokens for reply in replies)
        cut = any(reply.finish == "length" for reply in replies)
        return ScoredRound(scenario, number, _streamed(number), played, len(replies), cut, tokens)

    async def _ask(self, scenario: Scenario, messages: Sequence[Mapping[str, Any]], number: int) -> tuple[Reply, str]:
        functions = tool_scenarios.read()[0]
        most = self.sampling["max_tokens"]
        more = {
            "tools": [functions[name] for name in scenario.tools],
            "tool_choice": "auto",
            "temperature": self.sampling["temperature"],
            "chat_template_kwargs": self.sampling["chat_template_kwargs"],
            "seed": number,
        }
        try:
            if not _streamed(number):
                return await self.client.chat(messages, most, **more), ""
            stream = await self.client.stream(messages, most, **more)
        except Refused as error:
            if NO_PARSER in error.reason:
                raise UsageError(f"the replica parses no tool calls; {PARSER}.") from None
            return Reply("", "", "error", 0, 0, 0), error.with_reason()
        whole = stream.whole()
        return whole, "" if whole.finish == "length" else calls.stream_fault(stream, scenario.tools)


async def _run(client: VllmClient, runner: _Runner, scenarios: Sequence[Scenario], rounds: int) -> list[ScoredRound]:
    try:
        return await runner.run(scenarios, rounds)
    finally:
        await client.close()


def _streamed(number: int) -> bool:
    """Tell whether a round is streamed: every second one."""
    return number % 2 == 1


def summary(scored: Sequence[ScoredRound]) -> dict[str, Any]:
    """Return the counts and scores of all rounds, in the form of the other evaluations."""
    whole = [one for one in scored if not one.cut]

    def score(metric: str, chosen: Sequence[ScoredRound]) -> int:
        return sum(not getattr(one.played, metric) for one in chosen)

    def entry(metric: str) -> dict[str, Any]:
        return {
            "metric": metric,
            **Share(score(metric, scored), len(scored)).entry(),
            "of-whole-answers": [score(metric, whole), len(whole)],
            "published": [],
        }

    kinds = {kind: [one for one in scored if one.scenario.kind == kind] for kind in tool_scenarios.KINDS}
    return {
        "total": len(scored),
        "cut": len(scored) - len(whole),
        "scores": [entry("protocol"), entry("task")],
        "by-kind": {
            kind: {"protocol": score("protocol", of), "task": score("task", of), "total": len(of)}
            for kind, of in kinds.items()
            if of
        },
        "completion-tokens": sum(one.tokens for one in scored),
        "wrong": [
            {"scenario": one.scenario.name, "round": one.number, "streamed": one.streamed}
            | {"protocol": one.played.protocol, "task": one.played.task}
            for one in scored
            if one.played.protocol or one.played.task
        ],
    }


def _sample(one: ScoredRound) -> dict[str, Any]:
    return {
        "scenario": one.scenario.name,
        "kind": one.scenario.kind,
        "round": one.number,
        "streamed": one.streamed,
        "turns": one.turns,
        **{key: value for key, value in asdict(one.played).items() if key != "done"},
    }
