"""One start of the engine, as those who look after it share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dsv4_serve.entrypoint.plan import Plan
from dsv4_serve.entrypoint.supervision import Supervision
from dsv4_serve.healthcheck.engine import Engine
from dsv4_serve.healthcheck.state import Health


@dataclass(frozen=True)
class Replica:
    """What was planned, what is watched for, what is known, who is asked, and where to say something."""

    plan: Plan
    care: Supervision
    health: Health
    client: Engine
    say: Callable[[str], None]
