"""What advice has to know: what the plan sets, how the GPUs are connected, and whether requests were being served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ..listen import API_PORT
from ..plan import Plan
from ..process_limits import ProcessLimit
from .xid import Xid

_ANY_LIMIT = (
    "The limit of processes and threads is too low: raise it for the container (--pids-limit), or for the user"
    " (`ulimit -u`)."
)
NAMED = 4
"""Errors of GPUs that one sentence names."""


@dataclass(frozen=True)
class Situation:
    """The circumstances of an exit."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Flags and environment variables of the plan, by name."""
    nvlink: bool | None = None
    """Whether NVLink connects the GPUs; None when that is not known."""
    serving: bool = False
    """Whether the replica had been ready."""
    port: int = API_PORT
    xids: tuple[Xid, ...] = ()
    """What the driver reported of the GPUs meanwhile, the likeliest cause first."""
    limit: ProcessLimit | None = None
    """The limit of processes that was reached, if one was."""

    @classmethod
    def of(cls, plan: Plan, *, nvlink: bool | None, **more: Any) -> Situation:
        """Return the situation of a plan."""
        flags = {name: str(setting.value) for name, setting in plan.flags.items()}
        return cls({**flags, **plan.environment()}, nvlink, **more)

    def processes(self) -> str:
        """Return which limit of processes was reached and how to raise it, as a sentence; or how to raise any."""
        return self.limit.clause() if self.limit else _ANY_LIMIT

    def gpu_errors(self) -> str:
        """Return what the driver reported, as a clause; or where to look."""
        if not self.xids:
            return "look for Xid lines in the host's kernel log (`dmesg`)"
        return f"the driver reported {', '.join(xid.clause() for xid in self.xids[:NAMED])}"

    def has(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether the plan sets all of these; a value is a glob, and neither case nor blanks count."""
        return all(
            name in self.settings and fnmatchcase("".join(self.settings[name].lower().split()), str(value).lower())
            for name, value in settings.items()
        )
