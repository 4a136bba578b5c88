"""
The checks of startup, live and ready: named, pure functions of a replica's health and the time.

Their text is that of etcd and Kubernetes: `[+]name ok`, `[-]name failed: why`, a last line with the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .positions import COLLAPSED, by_position
from .state import Finding, Health

HealthCheck = Callable[[Health, float], Finding]

BEFORE_ENGINE = ("backoff", "resolving", "checking", "fetching weights", "starting")
"""The phases in which there may be no engine yet."""
ELSEWHERE = "this node has no API server; the first node proves all nodes"
ENDED = "the replica has ended or is ending; the end of its log has the reason"


def process(health: Health, _now: float) -> Finding:
    """Tell whether the engine exists, or is not needed yet."""
    if health.ended:
        return Finding("", ENDED)
    if health.engine is None and health.phase in BEFORE_ENGINE:
        return Finding(f"{health.phase}: there is no engine yet")
    if health.engine is None:
        return Finding("", f"no engine runs ({health.phase})")
    return Finding(f"engine is process {health.engine}")


def start_progress(health: Health, _now: float) -> Finding:
    """Tell whether the start makes progress."""
    return Finding(
        health.phase, health.stalled.partition("; last line:")[0]
    )  # probes are open, so they do not show lines of the log


def started(health: Health, now: float) -> Finding:
    """Tell whether the replica was ready once; the problem shows the progress of the start."""
    if health.ready_after is None:
        return Finding("", start_state(health, now))
    return Finding(f"ready {health.ready_after:.0f} s after start")


def live_progress(health: Health, now: float) -> Finding:
    """Tell whether the engine makes progress; before it is ready once, whether its start does."""
    if health.ready_after is None:
        return start_progress(health, now)
    return _progress(health, now, health.live_grace)


def ready_progress(health: Health, now: float) -> Finding:
    """Tell whether the engine makes progress, with a shorter limit than `live_progress`."""
    return _progress(health, now, health.ready_grace)


def accepting(health: Health, _now: float) -> Finding:
    """Tell whether the replica takes new requests at all."""
    if health.ended:
        return Finding("", ENDED)
    if health.draining:
        return Finding("", "draining: running requests are finished, no new ones are accepted")
    return Finding("accepting requests")


def generation(health: Health, _now: float) -> Finding:
    """Tell whether a real generation has succeeded since the start."""
    if health.headless:
        return Finding(ELSEWHERE)
    if health.generated_after is None:
        return Finding("", "no generation has succeeded since the start")
    return Finding(f"first generation {health.generated_after:.0f} s after start")


def gpus(health: Health, _now: float) -> Finding:
    """Tell whether the GPUs work as they did at the start."""
    faults = "; ".join(fault.sentence for fault in health.gpu_faults)
    return Finding("no fault was reported", *(("", faults) if not health.gpu_faults_matter else (faults,)))


def draft_gate(health: Health, _now: float) -> Finding:
    """Tell whether the drafter drafts. Degraded, and below the floor in live traffic, are warnings."""
    if health.headless:
        return Finding(ELSEWHERE)
    finding = health.gate or Finding("", "draft acceptance is not measured yet")
    if health.degraded:
        why = f" ({health.gate.problem or health.gate.detail})" if health.gate else ""
        finding = Finding(finding.detail, warning=f"degraded: serves without its draft head{why}")
    live = health.live_acceptance
    if not health.below_floor or live is None or live.ratio is None:
        return finding
    floor = "" if health.floors is None else f", floor {health.floors.total:.0%}"
    low = f"live traffic: {live.accepted} of {live.drafted} draft tokens accepted ({live.ratio:.0%}{floor})"
    low += f"; {by_position(live)}: {COLLAPSED}" if health.collapsed else ""
    return replace(finding, warning="; ".join(filter(None, [finding.warning, low])))


def corruption(health: Health, _now: float) -> Finding:
    """Tell whether the corruption canary passed."""
    if health.headless:
        return Finding(ELSEWHERE)
    return health.corruption or Finding("", "the corruption canary has not run yet")


GROUPS: Mapping[str, Mapping[str, HealthCheck]] = {
    "startup": {"process": process, "progress": start_progress, "started": started},
    "live": {"process": process, "progress": live_progress},
    "ready": {
        "accepting": accepting,
        "started": started,
        "gpus": gpus,
        "generation": generation,
        "draft-gate": draft_gate,
        "corruption": corruption,
        "progress": ready_progress,
    },
}
"""`dsv4 probe GROUP` asks `/GROUPz`."""


def run(group: str, health: Health, now: float) -> dict[str, Finding]:
    """Run the checks of a group (`startup`, `live`, `ready`), in their order."""
    return {name: check(health, now) for name, check in GROUPS[group].items()}


def passed(findings: Mapping[str, Finding]) -> bool:
    """Tell whether no finding has a problem."""
    return not any(finding.problem for finding in findings.values())


def as_text(group: str, findings: Mapping[str, Finding]) -> str:
    """Return one line for each check, then the warnings, then the verdict."""
    lines = [f"[-]{name} failed: {_line(f.problem)}" if f.problem else f"[+]{name} ok" for name, f in findings.items()]
    lines += [f"warn: {name}: {_line(f.warning)}" for name, f in findings.items() if f.warning]
    return "\n".join([*lines, f"{group}z check {_verdict(findings)}", ""])


def as_json(group: str, findings: Mapping[str, Finding], health: Health, now: float) -> dict[str, Any]:
    """Return status, checks and phase; for `startup` also how far it is (percent, bytes a second, seconds left)."""
    answer = {
        "status": _verdict(findings),
        "checks": [_check_json(name, finding) for name, finding in findings.items()],
        "phase": health.phase,
    }
    if group != "startup":
        return answer
    left, last = health.seconds_left(now), health.last_exit
    return {
        **answer,
        "detail": health.detail,
        "seconds_in_phase": round(now - health.phase_began, 3),
        "seconds_since_start": round(now - health.started, 3),
        "percent": health.percent,
        "rate": health.rate,
        "seconds_left": None if left is None else round(left, 3),
        "caches": health.caches,
        "phases": {phase: round(seconds, 3) for phase, seconds in health.seconds(now).items()},
        "last_start": {phase: round(seconds, 3) for phase, seconds in health.last_start.items()},
        "starts": health.starts,
        "backoff_seconds": None if health.backoff_until is None else round(max(0.0, health.backoff_until - now), 3),
        "last_exit": None if last is None else {"cause": last.cause, "status": last.status, "at": last.at},
        "key_required": bool(health.key),
        **({"limit": health.stall_limit} if health.stalled else {}),
    }


def _progress(health: Health, now: float, grace: float) -> Finding:
    idle = health.idle_for(now)
    if idle > grace:
        return Finding(
            "", f"requests are running, but the engine has made no progress for {idle:.0f} s (limit {grace:.0f} s)"
        )
    return Finding(f"last progress {idle:.0f} s ago" if health.busy else "nothing to do")


def start_state(health: Health, now: float) -> str:
    """Return the phase and how far it is, in one line: percent, rate, detail, the seconds spent and left."""
    done = "" if health.percent is None else f"{health.percent:.0f} %"
    if health.rate is not None:
        done = f"{done} at {_rate(health.rate)}".strip()
    wait = ""
    if health.phase == "backoff" and health.backoff_until is not None:
        wait = f"{max(0.0, health.backoff_until - now):.0f} s until the next start"
    left = health.seconds_left(now)
    parts = [
        done,
        health.detail,
        wait,
        f"{now - health.phase_began:.0f} s in this phase",
        f"{now - health.started:.0f} s since start",
        "" if left is None else f"about {left:.0f} s left" if left else "longer than the last start",
        "" if health.caches == "unknown" else f"caches {health.caches}",
    ]
    return f"{health.phase}: {', '.join(filter(None, parts))}"


def _rate(bytes_a_second: float) -> str:
    gib = bytes_a_second / 2**30
    return f"{gib:.1f} GiB/s" if gib >= 0.1 else f"{gib * 1024:.0f} MiB/s"


def _verdict(findings: Mapping[str, Finding]) -> str:
    return "passed" if passed(findings) else "failed"


def _check_json(name: str, finding: Finding) -> dict[str, Any]:
    explanation = {"why": finding.problem} if finding.problem else {"detail": finding.detail}
    return {
        "name": name,
        "ok": not finding.problem,
        **explanation,
        **({"warning": finding.warning} if finding.warning else {}),
    }


def _line(text: str) -> str:
    return " ".join(text.split())
