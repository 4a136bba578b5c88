"""Collect what is known about a replica before the first check: names, context, plan, and its model's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import supervision_settings
from ..client.endpoint import Endpoint, ServedPlan
from ..client.errors import RequestFailed
from ..draft_schedule import alone
from ..plan import Setting
from ..supervision_settings import Supervision
from .data import OnRecord, on_record, prompts

STREAMS = 4
"""Concurrent requests where neither the command line nor a plan sets them."""


@dataclass(frozen=True)
class Context:
    """
    One replica. `settings` is its plan's, flags and all, by name; None where no health server answers.

    `context_length` is max-model-len in tokens, 0 where unknown. `share` of it is filled by the long
    prompt; `streams` run at once.
    """

    names: tuple[str, ...]
    context_length: int
    settings: Mapping[str, Any] | None
    share: float
    streams: int
    prompts: Mapping[str, Any]
    record: OnRecord
    supervision: Supervision

    def lacks(self, flag: str) -> bool:
        """Tell whether the replica is known to be served without a flag."""
        return self.settings is not None and not self.settings.get(flag)

    @property
    def drafts(self) -> int | None:
        """Draft tokens of a step with one request; 0 without speculation, None where there is no plan."""
        return None if self.settings is None else alone(self.settings)


def plan(endpoint: Endpoint) -> tuple[ServedPlan | None, str]:
    """Return a replica's plan, or None and why there is none."""
    try:
        return endpoint.plan(), ""
    except RequestFailed as error:
        return None, str(error)


def context(
    names: tuple[str, ...], context_length: int, known: Mapping[str, Any] | None, share: float, streams: int | None
) -> Context:
    """Return what the checks depend on; raise ConfigError for a plan with settings that this version lacks."""
    have = known or {}
    given = {name: Setting(value, "") for name, value in have.items() if name.startswith("gate.")}
    supervision = supervision_settings.read(given)
    planned = (
        min(supervision.gate.concurrency, int(have.get("max-num-seqs") or STREAMS)) if known is not None else STREAMS
    )
    return Context(
        names=names,
        context_length=context_length,
        settings=known,
        share=share,
        streams=streams or planned,
        prompts=prompts(),
        record=on_record(str(have.get("model-name", "")), alone(have)),
        supervision=supervision,
    )
