"""The answer of `/status`: what a ready replica does, in figures, and why its last start ended. It needs the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..entrypoint.listen import API_PORT
from .state import Health

_SETTINGS = ("served-model-name", "model", "port", "ssl-certfile")


def as_json(health: Health, now: float) -> dict[str, Any]:
    """Return the figures of a replica; unknown ones are null."""
    canary = None if health.corruption_at is None else round(now - health.corruption_at, 1)
    return {
        **_served(health.plan),
        "phase": health.phase,
        "traffic": None if health.traffic is None else asdict(health.traffic),
        "draft": _draft(health),
        "canary_age": canary,
        "starts": health.starts,
        "last_exit": None if health.last_exit is None else asdict(health.last_exit),
    }


def _served(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of the model, the API's port, whether it is TLS, and what was selected."""
    known = plan.get("settings", {})
    settings = {name: known.get(name, {}).get("value") for name in _SETTINGS}
    names = settings["served-model-name"] or settings["model"] or []
    return {
        "models": [names] if isinstance(names, str) else list(names),
        "api": {"port": int(settings["port"] or API_PORT), "tls": bool(settings["ssl-certfile"])},
        "choices": dict(plan.get("choices", {})),
    }


def _draft(health: Health) -> dict[str, Any] | None:
    """Return draft acceptance at the gate and of live traffic, in all and by position, with the floors."""
    if health.floors is None:
        return None
    measured = {"gate": health.gate_acceptance, "live": health.live_acceptance}
    shares = {name: one.positions if one else () for name, one in measured.items()}
    rows = max(map(len, shares.values()), default=0)
    return {
        "floor": health.floors.total,
        **{name: one.ratio if one else None for name, one in measured.items()},
        "drafted": health.live_acceptance.drafted if health.live_acceptance else 0,
        "below_floor": health.below_floor,
        "collapsed": health.collapsed,
        "degraded": health.degraded,
        "positions": [
            {
                "position": row,
                "floor": health.floors.positions[row] if row < len(health.floors.positions) else None,
                **{name: known[row] if row < len(known) else None for name, known in shares.items()},
            }
            for row in range(rows)
        ],
    }
