"""What a container, and the health server in it, say of a replica or of the balancer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import httpx

from ..listen import HEALTH_PORT
from .containers import GPUS, STATUS_PORT
from .daemon import ROLE

TIMEOUT = 3.0


@dataclass(frozen=True)
class Seen:
    """One container now. `phase` is the replica's own word, else the container's state (`exited`)."""

    name: str
    role: str
    gpus: str
    state: str
    began: str
    """When the container was started (RFC 3339, UTC)."""
    phase: str
    detail: str = ""
    """How far the start is, or why it is not ready."""
    percent: float | None = None
    ready: bool = False
    answers: bool = False
    """Whether the health server answered."""
    acceptance: str = ""
    """What the MTP gate measured."""

    def to_json(self) -> dict[str, Any]:
        """Return what `dsv4 status --format json` prints of one container."""
        told = ("name", "role", "gpus", "state", "phase", "detail", "percent", "ready", "acceptance")
        return {**{key: getattr(self, key) for key in told}, "since": self.began}


def observe(container: Any) -> Seen:
    """Look at one container of ours, as its engine tells it, and ask its health server where it runs."""
    state = container.attrs["State"]
    seen = Seen(
        container.name,
        container.labels.get(ROLE, ""),
        container.labels.get(GPUS, ""),
        state["Status"],
        state["StartedAt"],
        state["Status"],
        detail="" if state["Running"] else f"status {state['ExitCode']}",
    )
    if not state["Running"]:
        return seen
    balancer = seen.role == "balancer"
    port = published(container, STATUS_PORT if balancer else HEALTH_PORT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT, trust_env=False) as client:
            ready = client.get("/readyz", params={"format": "json"})
            if balancer:
                none = "" if ready.is_success else "no replica is ready"
                return replace(seen, answers=True, ready=ready.is_success, detail=none)
            return judge(seen, client.get("/startupz", params={"format": "json"}).json(), ready.json())
    except (httpx.HTTPError, ValueError):
        return replace(seen, detail="its health server does not answer")


def published(container: Any, port: int) -> int | None:
    """Return where on this host's loopback a container's port is found; it changes with each start."""
    bound = (container.attrs["NetworkSettings"].get("Ports") or {}).get(f"{port}/tcp") or []
    return int(bound[0]["HostPort"]) if bound else None


def judge(seen: Seen, startup: dict[str, Any], ready: dict[str, Any]) -> Seen:
    """Join a container with the answers of /startupz and /readyz."""
    checks = {check["name"]: check for check in ready["checks"]}
    why = next((c["why"] for c in checks.values() if not c["ok"] and c["name"] != "started"), "")
    warning = next((c["warning"] for c in checks.values() if "warning" in c), "")
    starting = next((c["why"] for c in startup["checks"] if not c["ok"]), "")
    return replace(
        seen,
        answers=True,
        phase=ready["phase"],
        detail=(starting or why or warning).removeprefix(f"{ready['phase']}: "),
        percent=startup["percent"],
        ready=ready["status"] == "passed",
        acceptance=checks.get("mtp-gate", {}).get("detail", ""),
    )
