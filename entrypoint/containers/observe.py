"""Observe the state of a replica or of the balancer, by its container and its health server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..client import http
from ..client.errors import Unreachable
from ..listen import HEALTH_PORT
from .containers import GPUS, STATUS_PORT
from .daemon import ROLE

TIMEOUT = 3.0


@dataclass(frozen=True)
class ContainerState:
    """The state of one container. `phase` is the replica's own, else the container's status (`exited`)."""

    name: str
    role: str
    gpus: str
    status: str
    """The container's, as its engine names it."""
    began: str
    """When the container was started (RFC 3339, UTC)."""
    phase: str
    detail: str = ""
    """The progress of the start, or why it is not ready."""
    percent: float | None = None
    rate: float | None = None
    """Bytes a second."""
    step: str = ""
    """The progress within the phase, such as `shard 3 of 35`."""
    seconds_left: float | None = None
    """By the last start of the plan; None where that is not known."""
    ready: bool = False
    answers: bool = False
    """Whether the health server answered."""
    acceptance: str = ""
    """What the draft gate measured."""

    def to_json(self) -> dict[str, Any]:
        """Return what `dsv4 status --format json` prints of one container."""
        names = {"status": "state", "began": "since"}
        progress = ("phase", "detail", "percent", "rate", "seconds_left")
        order = ("name", "role", "gpus", "status", *progress, "ready", "acceptance", "began")
        return {names.get(field, field): getattr(self, field) for field in order}


def observe(container: Any) -> ContainerState:
    """Return the state of one of our containers; ask its health server where it runs."""
    engine = container.attrs["State"]
    state = ContainerState(
        container.name,
        container.labels.get(ROLE, ""),
        container.labels.get(GPUS, ""),
        engine["Status"],
        engine["StartedAt"],
        engine["Status"],
        detail="" if engine["Running"] else f"status {engine['ExitCode']}",
    )
    if not engine["Running"]:
        return state
    balancer = state.role == "balancer"
    port = published(container, STATUS_PORT if balancer else HEALTH_PORT)
    try:
        with http.session(f"http://127.0.0.1:{port}", TIMEOUT) as client:
            if balancer:  # HAProxy compares the whole path: with parameters, /readyz is an unknown page
                any_ready = client.get("/readyz").is_success
                return replace(state, answers=True, ready=any_ready, detail="" if any_ready else "no replica is ready")
            ready = client.get("/readyz", params={"format": "json"})
            return with_health(state, client.get("/startupz", params={"format": "json"}).json(), ready.json())
    except (Unreachable, ValueError):
        return replace(state, detail="its health server does not answer")


def published(container: Any, port: int) -> int | None:
    """Return the loopback port of this host for a container's port; it changes with each start."""
    bound = (container.attrs["NetworkSettings"].get("Ports") or {}).get(f"{port}/tcp") or []
    return int(bound[0]["HostPort"]) if bound else None


def with_health(state: ContainerState, startup: dict[str, Any], ready: dict[str, Any]) -> ContainerState:
    """Return the state of a container with the answers of /startupz and /readyz."""
    checks = {check["name"]: check for check in ready["checks"]}
    why = next((c["why"] for c in checks.values() if not c["ok"] and c["name"] != "started"), "")
    warning = next((c["warning"] for c in checks.values() if "warning" in c), "")
    starting = next((c["why"] for c in startup["checks"] if not c["ok"]), "")
    return replace(
        state,
        answers=True,
        phase=ready["phase"],
        detail=(starting or why or warning).removeprefix(f"{ready['phase']}: "),
        percent=startup["percent"],
        rate=startup.get("rate"),
        step=startup.get("detail", ""),
        seconds_left=startup.get("seconds_left"),
        ready=ready["status"] == "passed",
        acceptance=checks.get("draft-gate", {}).get("detail", ""),
    )
