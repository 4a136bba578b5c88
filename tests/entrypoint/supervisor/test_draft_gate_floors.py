"""What the draft gate compares a plan's drafter with."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dsv4_serve.entrypoint import supervision_settings
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import readiness_gate
from dsv4_serve.entrypoint.supervisor.context import VllmSession
from dsv4_serve.entrypoint.supervisor.kernel_cache import KernelCache
from dsv4_serve.healthcheck.state import Acceptance, Finding, Health

SCHEDULE = "speculative-config.num_speculative_tokens_per_batch_size"


def gated(flags: dict[str, Any], choices: dict[str, Setting] | None = None) -> Health:
    """The health after the draft gate of a plan with these flags."""
    plan = Plan(choices or {}, {name: Setting(value, "test") for name, value in flags.items()}, {})
    health, client = Health(), None
    cache = KernelCache.__new__(KernelCache)
    session = VllmSession(plan, supervision_settings.read({}), health, client, cache, 0.0)  # type: ignore[arg-type]
    asyncio.run(readiness_gate._drafter(session))
    return health


@pytest.fixture(autouse=True)
def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*_: object) -> tuple[Finding, Acceptance]:
        return Finding("good"), Acceptance(0, 0)

    monkeypatch.setattr(readiness_gate.gate, "run", run)


@pytest.mark.parametrize(
    ("flags", "floors"),
    [
        ({"method": "mtp", "num_speculative_tokens": 2}, (0.3, (0.4, 0.2))),
        ({"method": "ngram", "num_speculative_tokens": 1}, (0.4, (0.4,))),
        ({"method": "dspark", "num_speculative_tokens": 3}, (0.25, (0.35, 0.25, 0.15))),
    ],
)
def test_the_floors_are_those_of_the_drafter_and_its_draft_tokens(
    flags: dict[str, Any], floors: tuple[float, tuple[float, ...]]
) -> None:
    found = gated({f"speculative-config.{name}": value for name, value in flags.items()}).floors
    assert found is not None
    assert (found.total, found.positions) == (pytest.approx(floors[0]), floors[1])


def test_with_k_by_load_the_gate_measures_what_one_request_gets() -> None:
    flags = {"speculative-config.method": "dspark", "speculative-config.num_speculative_tokens": 5}
    health = gated({**flags, SCHEDULE: [[1, 2, 2], [3, 8, 1]], "max-num-seqs": 8})
    assert health.floors is not None
    assert health.floors.positions == (0.35, 0.25)


def test_without_a_drafter_the_check_passes_and_says_what_is_lost() -> None:
    health = gated({}, {"drafter": Setting("none", "every token takes a step")})
    assert health.gate == Finding("the plan has no draft tokens: every token takes a step")
