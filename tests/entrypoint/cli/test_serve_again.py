"""A plan is resolved again once its weights are there: the files say what they are."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import pytest

from dsv4_serve.entrypoint.cli import serve
from dsv4_serve.entrypoint.plan import DRAFT_TOKENS, Plan, Setting

BEFORE = Plan({}, {"model": Setting("owner/model", "test")}, {})
AFTER = Plan({}, {**BEFORE.flags, DRAFT_TOKENS: Setting(3, "test")}, {})


class Life:
    """Runs steps at once, and remembers the plans that it was given."""

    def __init__(self) -> None:
        self.described: list[Plan] = []

    async def unless_stopped(self, step: Any, *arguments: Any) -> Any:
        return step(*arguments)

    def describe(self, plan: Plan) -> None:
        self.described.append(plan)


@pytest.mark.parametrize(("after", "described"), [(AFTER, [AFTER]), (BEFORE, [])])
def test_the_files_that_were_fetched_decide(
    after: Plan, described: list[Plan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(serve, "_resolve", lambda *_: ("selection", after))
    life = Life()
    found = asyncio.run(serve._resolve_again(BEFORE, life, argparse.Namespace(), []))  # type: ignore[arg-type]
    assert found == ("selection", after)
    assert life.described == described
    assert ("the files that were fetched change the plan" in capsys.readouterr().err) == bool(described)
