"""One start of the engine, as those who look after it share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...healthcheck.state import Health
from ..client.vllm import VllmClient
from ..plan import Plan
from ..supervision_settings import Supervision


@dataclass(frozen=True)
class Replica:
    """What was planned, what is watched for, what is known, who is asked, and where to say something."""

    plan: Plan
    care: Supervision
    health: Health
    client: VllmClient
    say: Callable[[str], None]
