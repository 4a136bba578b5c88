"""Keep every start of a run in a file as it ends, so that an interrupted run continues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import plain_file
from ..errors import ConfigError, HostError
from ..validation import sentence
from .decide import TuneTrial
from .measure import Visit

_MIB = 64
_Measured = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    setup: list[str]
    speeds: dict[int, _Measured] = {}
    failed: str = ""
    seconds: _Measured = 0.0
    rows: list[dict[str, Any]] = []
    replica: dict[str, Any] = {}
    """Of the first start of a setup."""


@dataclass
class Kept:
    """The file of one run, and what it holds."""

    path: Path
    visits: list[Visit] = field(default_factory=list)

    @property
    def trials(self) -> list[TuneTrial]:
        """What has been measured."""
        return [visit.trial for visit in self.visits]

    @property
    def spent(self) -> float:
        """Seconds of all starts."""
        return sum(trial.seconds for trial in self.trials)

    def add(self, visit: Visit) -> None:
        """Append a start; raise HostError where the file cannot be written."""
        known = any(other.trial.setup == visit.trial.setup and other.replica for other in self.visits)
        self.visits.append(visit)
        trial = visit.trial
        line = _Line(
            setup=list(trial.setup),
            speeds=dict(trial.speeds),
            failed=trial.failed,
            seconds=trial.seconds,
            rows=list(visit.rows),
            replica={} if known else dict(visit.replica),
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            plain_file.write_text(self.path, line.model_dump_json() + "\n", append=True)
        except OSError as error:
            raise HostError(f"cannot write {self.path} ({error.strerror}); choose another folder with --out.") from None

    def rows(self, setup: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the rows of every start of a setup."""
        return [row for visit in self.visits if visit.trial.setup == tuple(setup) for row in visit.rows]

    def replica(self, setup: Sequence[str]) -> Mapping[str, Any]:
        """Return the replica of a setup as it was described at its first start."""
        found = (visit.replica for visit in self.visits if visit.trial.setup == tuple(setup) and visit.replica)
        return next(found, {})


def opened(path: Path) -> Kept:
    """Return what a file holds; an unfinished last line is dropped. Raise ConfigError for another file."""
    if not path.exists():
        return Kept(path)
    try:
        content = plain_file.read(path, _MIB)
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # it was interrupted while it wrote
            path.write_bytes(whole)
        lines = whole.decode("utf-8").split("\n")[:-1]
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({getattr(error, 'strerror', error)}); move it away.") from None
    try:
        return Kept(path, [_visit(_Line.model_validate(json.loads(line))) for line in lines])
    except ValidationError as error:
        raise ConfigError(f"{path} is not what `dsv4 tune` keeps ({sentence(error)}); move it away.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not what `dsv4 tune` keeps ({error}); move it away.") from None


def _visit(line: _Line) -> Visit:
    if not line.failed and not (line.speeds and all(line.speeds.values())):
        raise ValueError("a start without a speed has not failed")
    trial = TuneTrial(tuple(line.setup), line.speeds, line.failed, line.seconds)
    return Visit(trial, tuple(line.rows), line.replica)
