"""What the proofs of a replica do with what they find: refuse, warn or pass, and never judge a dead engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervision_settings import Supervision
from dsv4_serve.entrypoint.supervisor import readiness_gate
from dsv4_serve.entrypoint.supervisor.context import VllmSession
from dsv4_serve.entrypoint.supervisor.kernel_cache import KernelCache
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason
from dsv4_serve.healthcheck.state import Acceptance, Finding, Health

DRAFTS, NONE = {"speculative-config.num_speculative_tokens": 3, "speculative-config.method": "mtp"}, {}
GOOD, BAD = Finding("75% accepted"), Finding("2% accepted", "2% accepted: it drafts noise")
SOUND, GARBLED = Finding("all agree"), Finding("none agree", "script-mix in 20 of 20 answers")
ODD = Finding("all agree", warning="empty, for one prompt only")
COUNTED = Acceptance(100, 75)


class Proofs:
    """A session whose proofs find what the test says; `asked` are the arguments of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.gate, self.corruption, self.alive = GOOD, SOUND, True
        self.asked: list[tuple[Any, ...]] = []
        monkeypatch.setattr(readiness_gate.canary, "one_token", self.one_token)
        monkeypatch.setattr(readiness_gate.gate, "run", self.run_gate)
        monkeypatch.setattr(readiness_gate.canary, "run", self.run_canary)
        self.settings = Supervision.model_validate({"gate": settings})
        self.health = Health(started=time.monotonic() - 5.0)

    async def one_token(self, _client: object) -> None:
        self.asked.append(("one token",))

    async def run_gate(self, _client: object, floors: Floors, tokens: int) -> tuple[Finding, Acceptance]:
        self.asked.append(("gate", floors, tokens))
        return self.gate, COUNTED

    async def run_canary(self, _client: object, *arguments: object) -> Finding:
        self.asked.append(("canary", *arguments))
        return self.corruption

    async def healthy(self) -> bool:
        return self.alive

    def session(self, flags: dict[str, Any], **choices: str) -> VllmSession:
        plan = Plan(
            {name: Setting("x", origin) for name, origin in choices.items()},
            {name: Setting(value, "test") for name, value in flags.items()},
            {},
        )
        client: Any = self
        return VllmSession(plan, self.settings, self.health, client, KernelCache.__new__(KernelCache), 0.0)

    def prove(self, flags: dict[str, Any] = DRAFTS, **choices: str) -> ExitReason | None:
        return asyncio.run(readiness_gate.prove(self.session(flags, **choices)))

    def canary(self, flags: dict[str, Any] = DRAFTS, *, during_traffic: bool = False) -> ExitReason | None:
        return asyncio.run(readiness_gate.corruption(self.session(flags), during_traffic=during_traffic))


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Proofs]:
    return lambda **settings: Proofs(monkeypatch, **settings)


def test_a_replica_is_proved_by_a_token_its_drafts_and_its_answers_in_this_order(proofs: Callable[..., Proofs]) -> None:
    made = proofs(tokens=32)
    assert made.prove() is None
    assert [asked[0] for asked in made.asked] == ["one token", "gate", "canary"]
    assert made.asked[1][2] == 32
    assert made.health.floors == made.asked[1][1]
    assert len(made.asked[1][1].positions) == 3
    assert (made.health.gate, made.health.gate_acceptance) == (GOOD, COUNTED)
    assert made.health.corruption == SOUND
    assert made.asked[2][1] == 8
    assert made.health.generated_after is not None
    assert 5.0 <= made.health.generated_after < 600.0


def test_a_gate_below_its_floor_refuses_before_the_canary(proofs: Callable[..., Proofs]) -> None:
    made = proofs()
    made.gate = BAD
    assert made.prove() == ExitReason(exit_cause.GATE_REFUSED, "draft gate: 2% accepted: it drafts noise")
    assert [asked[0] for asked in made.asked] == ["one token", "gate"]
    assert made.health.gate == BAD


def test_a_gate_below_its_floor_may_be_a_warning(
    proofs: Callable[..., Proofs], caplog: pytest.LogCaptureFixture
) -> None:
    made = proofs(**{"below-floor": "warn"})
    made.gate = BAD
    assert made.prove() is None
    assert made.health.gate == Finding("2% accepted", warning="2% accepted: it drafts noise (gate.below-floor = warn)")
    assert "draft gate: 2% accepted: it drafts noise" in caplog.messages


@pytest.mark.parametrize("setting", ["refuse", "warn"])
def test_a_dead_engine_is_not_judged(proofs: Callable[..., Proofs], setting: str) -> None:
    made = proofs(**{"below-floor": setting, "corrupted": setting})
    made.alive = False
    made.gate = BAD
    with pytest.raises(Unreachable):
        made.prove()
    made.corruption = GARBLED
    with pytest.raises(Unreachable):
        made.canary()


def test_a_dead_engine_is_only_asked_for_after_a_problem(proofs: Callable[..., Proofs]) -> None:
    made = proofs()
    made.alive = False
    assert made.prove() is None


def test_a_plan_without_draft_tokens_says_so_and_why(
    proofs: Callable[..., Proofs], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = proofs()
    assert made.prove(NONE) is None
    assert made.health.gate == Finding("the plan has no draft tokens")
    assert made.prove(NONE, drafter="the checkpoint has none") is None
    assert made.health.gate == Finding("the plan has no draft tokens: the checkpoint has none")
    assert "draft gate: the plan has no draft tokens" in caplog.messages
    assert "gate" not in [asked[0] for asked in made.asked]


def test_a_replica_that_was_started_again_without_its_drafter_keeps_the_finding(proofs: Callable[..., Proofs]) -> None:
    made = proofs()
    made.health.degraded, made.health.gate = True, BAD
    assert made.prove(NONE) is None
    assert made.health.gate == BAD


@pytest.mark.parametrize(("flags", "at_once"), [({}, 8), ({"max-num-seqs": 4}, 4), ({"max-num-seqs": 64}, 8)])
def test_the_canary_sends_no_more_at_once_than_vllm_runs(
    proofs: Callable[..., Proofs], flags: dict[str, Any], at_once: int
) -> None:
    made = proofs(**{"agreement-floor": 0.6, "signs": ["empty"], "tokens": 40})
    assert made.canary(flags) is None
    assert made.asked == [("canary", at_once, 40, ["empty"], 0.6)]


def test_beside_traffic_it_sends_one_at_a_time_and_only_signs_count(proofs: Callable[..., Proofs]) -> None:
    made = proofs(tokens=40, signs=["empty"])
    assert made.canary(during_traffic=True) is None
    assert made.asked == [("canary", 1, 40, ["empty"], 0.0)]


def test_garbled_answers_refuse_or_warn(proofs: Callable[..., Proofs], caplog: pytest.LogCaptureFixture) -> None:
    made = proofs()
    made.corruption = GARBLED
    assert made.canary() == ExitReason(exit_cause.CORRUPTED, "corruption canary: script-mix in 20 of 20 answers")
    assert made.health.corruption == GARBLED
    assert caplog.messages == []
    warned = proofs(corrupted="warn")
    warned.corruption = GARBLED
    assert warned.canary() is None
    assert warned.health.corruption == Finding(
        "none agree", warning="script-mix in 20 of 20 answers (gate.corrupted = warn)"
    )
    assert caplog.messages == ["corruption canary: script-mix in 20 of 20 answers"]


@pytest.mark.parametrize("setting", ["refuse", "warn"])
def test_a_warning_of_the_canary_is_told_and_kept(
    proofs: Callable[..., Proofs], caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    made = proofs(corrupted=setting)
    made.corruption = ODD
    assert made.canary() is None
    assert made.health.corruption == ODD
    assert caplog.messages == ["corruption canary: empty, for one prompt only"]
