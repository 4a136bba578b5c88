"""
The state of one replica. The supervisor writes it and the health server reads it, in one event loop without locks.

Times are seconds of `time.monotonic()`; rates are bytes per second. The probes are open, so anyone can read every
text here except `key` and `plan`: it never quotes a prompt, a key, the path of a secret, or a line of vLLM's log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from ..entrypoint.draft_floors import Floors
from ..entrypoint.key_file import KeyFile
from .traffic import Traffic

PHASES = (
    "backoff",  # of the crash-loop breaker
    "resolving",  # names into a plan
    "checking",  # the doctor
    "fetching weights",  # that the Hub's cache lacks
    "starting",  # Python and vLLM's imports
    "connecting ranks",  # the first collective
    "loading weights",
    "compiling kernels",
    "profiling",  # memory, to size the KV cache
    "capturing graphs",
    "warming up",  # vLLM's own warm-up, and the API server
    "proving",  # a first generation, the draft gate, the corruption canary
    "ready",
    "draining",
    "ended",
)

Caches = Literal["cold", "warm", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The finding of a proof: `problem` is empty when it passed, `detail` is one line with the figures."""

    detail: str
    problem: str = ""
    warning: str = ""
    """A defect in spite of which it passed: every probe shows it, and traffic still comes."""


@dataclass(frozen=True)
class Acceptance:
    """
    Draft tokens of one measurement, and how many of them were accepted.

    `drafts` holds one or more draft tokens each; `at` counts those accepted at each position of a draft, first to last.
    """

    drafted: int
    accepted: int
    drafts: int = 0
    at: tuple[int, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Accepted / drafted; None when nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def positions(self) -> tuple[float, ...]:
        """The share of drafts with an accepted token at each position; lower where drafts are of different lengths."""
        return tuple(count / self.drafts for count in self.at) if self.drafts else ()

    def since(self, before: Acceptance) -> Acceptance:
        """Return what was counted after an earlier reading of the same counters."""
        earlier = before.at + (0,) * len(self.at)
        at = tuple(now - then for now, then in zip(self.at, earlier, strict=False))
        counts = (self.drafted - before.drafted, self.accepted - before.accepted, self.drafts - before.drafts)
        return Acceptance(*counts, at)

    def __add__(self, other: Acceptance) -> Acceptance:
        at = (a + b for a, b in zip_longest(self.at, other.at, fillvalue=0))
        counts = (self.drafted + other.drafted, self.accepted + other.accepted, self.drafts + other.drafts)
        return Acceptance(*counts, tuple(at))

    @property
    def later(self) -> Acceptance:
        """The draft tokens after the first of each draft, whatever the drafts' lengths."""
        first = self.at[0] if self.at else self.accepted
        return Acceptance(max(0, self.drafted - self.drafts) if self.drafts else 0, self.accepted - first)


@dataclass(frozen=True)
class LastExit:
    """How a start ended: the name of its cause, its exit status (None where none was recorded), and what it said."""

    cause: str
    status: int | None = None
    sentence: str = ""
    root: str = ""
    """The root cause line of vLLM's log."""
    at: float | None = None
    """Seconds since the epoch."""


@dataclass(frozen=True)
class GpuFault:
    """A GPU that does not work as before: its PCI address, the driver's error, and what to do."""

    gpu: str
    xid: int
    sentence: str


@dataclass
class Health:
    """One replica, from the first second of its supervisor to the last."""

    started: float = field(default_factory=time.monotonic)

    phase: str = "resolving"
    phase_began: float = field(default_factory=time.monotonic)
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each phase that is over."""
    percent: float | None = None
    """How much of the weights is fetched, then loaded, 0 to 100."""
    rate: float | None = None
    detail: str = ""
    """The progress within the phase: `shard 3 of 35`, `shapes 120 of 790`."""
    stalled: str = ""
    """Why the start counts as stalled."""
    stall_limit: float | None = None
    """Seconds that this phase may last without progress; None without a limit."""
    caches: Caches = "unknown"
    last_start: Mapping[str, float] = field(default_factory=dict)
    """Seconds in each phase of this plan's last start that found its kernels; empty where it is not known."""

    cache_hit: bool | None = None
    cache_saved: float | None = None
    """Whether an earlier start of this plan filled the kernel cache, and the seconds that this one saved by it."""

    headless: bool = False
    """Whether this node has no API server, and computes for another one."""
    engine: int | None = None
    """Process id of vLLM; None when there is none."""
    gpu_faults: tuple[GpuFault, ...] = ()
    gpu_faults_matter: bool = True
    """Whether the replica is out of rotation then."""
    generated_after: float | None = None
    """Seconds from start to the first real generation; None before it."""
    ready_after: float | None = None
    """Seconds from start to ready; None before it."""

    gate: Finding | None = None
    gate_acceptance: Acceptance | None = None
    floors: Floors | None = None
    degraded: bool = False
    """Whether the engine was restarted without its draft head because the gate failed."""
    corruption: Finding | None = None
    corruption_at: float | None = None
    """When the corruption canary last ended."""
    live_acceptance: Acceptance | None = None
    """Draft tokens of live traffic in the sliding window."""
    below_floor: bool = False
    """Whether live traffic has been below the floor for a whole window."""
    collapsed: bool = False
    """Whether live traffic accepts first draft tokens and hardly any after them."""

    progressed: float = field(default_factory=time.monotonic)
    """When the engine last showed a sign of progress, or had nothing to do."""
    busy: bool = False
    """Whether the engine has work: requests of users, or a canary."""
    traffic: Traffic | None = None
    requests: int = 0
    """Requests running and waiting when vLLM's counters were last read."""
    ready_grace: float = 35.0
    live_grace: float = 120.0
    """Seconds without progress, while busy, after which the replica is not ready, and not live."""

    draining: bool = False
    ended: str = ""
    """Why the replica ended, or is about to."""

    starts: int = 1
    """Starts of this plan in the run directory's record, this one included."""
    last_exit: LastExit | None = None
    """How the start before this one ended, or this one that is held back; None where none is on record."""
    backoff_until: float | None = None
    """When the crash-loop breaker lets the next start begin."""

    key: str = ""
    """The key of this replica itself; empty when none is set."""
    key_file: KeyFile | None = None
    """The keys of clients, where a file has them."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """The answer of `/plan`: the plan with masked secrets, the patch report, versions."""

    def enter(self, phase: str, now: float | None = None) -> None:
        """Go to another phase; the time spent in the last one is kept, and its progress forgotten."""
        if phase == self.phase:
            return
        now = time.monotonic() if now is None else now
        self.phase_seconds[self.phase] = self.phase_seconds.get(self.phase, 0.0) + now - self.phase_began
        self.phase, self.phase_began = phase, now
        self.percent, self.rate, self.detail, self.stall_limit = None, None, "", None

    def seconds(self, now: float) -> dict[str, float]:
        """Return the seconds spent in each phase so far, the present one included."""
        spent = self.phase_seconds.get(self.phase, 0.0) + now - self.phase_began
        return {**self.phase_seconds, self.phase: spent}

    def seconds_left(self, now: float) -> float | None:
        """Return how long the start still takes, by this plan's last one; None where that is not known."""
        if not self.last_start or self.phase not in PHASES[PHASES.index("starting") : PHASES.index("ready")]:
            return None
        spent, ahead = self.seconds(now), PHASES[PHASES.index(self.phase) : PHASES.index("ready")]
        return sum(max(0.0, self.last_start.get(phase, 0.0) - spent.get(phase, 0.0)) for phase in ahead)

    def ready_in(self, now: float) -> float | None:
        """Return the seconds until the replica is probably ready, a backoff included; None where that is not known."""
        if self.phase != "backoff" or self.backoff_until is None:
            return self.seconds_left(now)
        return max(0.0, self.backoff_until - now) + sum(self.last_start.values())

    def idle_for(self, now: float) -> float:
        """Seconds without progress while there is work; 0 when there is none."""
        return max(0.0, now - self.progressed) if self.busy else 0.0
