"""The data that a supervisor is given, and the data that the parts of one supervision share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...healthcheck.state import Health
from ..client.vllm import VllmClient
from ..plan import Plan
from ..supervision_settings import Supervision
from .kernel_cache import KernelCache


@dataclass(frozen=True)
class ServeContext:
    """Where `serve` runs: the address of its health server, its files, and the vLLM that it starts."""

    environ: Mapping[str, str]
    vllm: str
    """The program to start as vLLM."""
    health_host: str
    health_port: int
    run_folder: Path
    termination_log: Path
    interactive: bool = False
    """Whether a person is watching; a repeated error is then reported without a wait."""
    write: Callable[[int, bytes], bool] | None = None
    """Writes vLLM's log to a file descriptor, below it a line with the progress; None where there is no such line."""


@dataclass(frozen=True)
class VllmSession:
    """One vLLM from its start to its end: its plan, settings, health and client."""

    plan: Plan
    settings: Supervision
    health: Health
    client: VllmClient
    cache: KernelCache
    started: float
    """When it was started, on the clock of `time.monotonic()`."""
    report_every: float = 30.0
    """Seconds between two messages on the progress within a phase; infinite where a line shows it."""
