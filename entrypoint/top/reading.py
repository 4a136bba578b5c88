"""Ask a replica's health server what it does: /startupz and /readyz are open, /status needs the key."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from ...healthcheck.state import LastExit
from ...healthcheck.traffic import Traffic
from ..client import http
from ..client.errors import Unreachable
from ..secret import without_password
from .targets import TopTarget

if TYPE_CHECKING:
    import httpx

TIMEOUT = 3.0  # seconds
NO_ANSWER = "no answer"
_Answer = TypeVar("_Answer", bound=BaseModel)


class _Check(BaseModel):
    name: str
    ok: bool
    why: str = ""
    warning: str = ""


class _Startup(BaseModel):
    phase: str
    detail: str = ""
    seconds_in_phase: float
    percent: float | None = None
    seconds_left: float | None = None


class _Ready(BaseModel):
    status: str
    checks: list[_Check]


class TopPosition(BaseModel):
    """Shares of drafts that were accepted up to a position, with its floor."""

    position: int
    floor: float | None = None
    gate: float | None = None
    live: float | None = None


class TopDraft(BaseModel):
    """Shares of accepted draft tokens, at the draft gate and of live traffic."""

    floor: float | None = None
    gate: float | None = None
    live: float | None = None
    drafted: int = 0
    below_floor: bool = False
    collapsed: bool = False
    degraded: bool = False
    positions: list[TopPosition] = []


class _Status(BaseModel):
    models: list[str] = []
    traffic: Traffic | None = None
    draft: TopDraft | None = None
    starts: int | None = None
    last_exit: LastExit | None = None


@dataclass(frozen=True)
class TopReading:
    """One replica as it answered; what is unknown is None or empty."""

    name: str
    phase: str
    ready: bool = False
    why: str = ""
    """Why it is not ready, or a warning."""
    models: tuple[str, ...] = ()
    seconds_in_phase: float | None = None
    percent: float | None = None
    step: str = ""
    seconds_left: float | None = None
    traffic: Traffic | None = None
    draft: TopDraft | None = None
    starts: int | None = None
    cause: str = ""
    """How the last start ended."""
    note: str = ""
    """Why there are no figures."""

    def to_json(self) -> dict[str, Any]:
        """Return what `--format json` prints of one replica."""
        plain = {**vars(self), "models": list(self.models)}
        draft = None if self.draft is None else self.draft.model_dump()
        return {**plain, "traffic": None if self.traffic is None else asdict(self.traffic), "draft": draft}


def read_all(targets: Sequence[TopTarget], key: str | None) -> list[TopReading]:
    """Read all replicas at once, so that timeouts do not add up."""
    with ThreadPoolExecutor(min(32, len(targets))) as pool:
        return list(pool.map(lambda target: read(target, key), targets))


def read(target: TopTarget, key: str | None, transport: httpx.BaseTransport | None = None) -> TopReading:
    """Return what one replica answers."""
    if target.url is None:
        return TopReading(target.name, target.phase, cause=target.cause)
    try:
        with http.session(target.url, TIMEOUT, transport) as client:
            return _read(client, target, key)
    except Unreachable as error:  # a container that starts or ends has no port
        why = f"nothing answers at {without_password(target.url)} ({error}); is a replica running there?"
        return TopReading(target.name, NO_ANSWER, why=why, cause=target.cause)
    except ValidationError:
        why = "the answer is not from the health server of a replica; name that with --health"
        return TopReading(target.name, NO_ANSWER, why=why)


def _read(client: httpx.Client, target: TopTarget, key: str | None) -> TopReading:
    startup = _parsed(_Startup, _get(client, "/startupz?format=json"))
    ready = _parsed(_Ready, _get(client, "/readyz?format=json"))
    status, note = _status(client, key)
    wrong = [check.why for check in ready.checks if not check.ok and check.name != "started"]
    wrong += [check.warning for check in ready.checks if check.warning]
    starting = ready.status != "passed" and any(check.name == "started" and not check.ok for check in ready.checks)
    return TopReading(
        target.name,
        startup.phase,
        ready=ready.status == "passed",
        why="" if starting or not wrong else wrong[0],
        models=tuple(status.models),
        seconds_in_phase=startup.seconds_in_phase,
        percent=startup.percent,
        step=startup.detail,
        seconds_left=startup.seconds_left,
        traffic=status.traffic,
        draft=status.draft,
        starts=status.starts,
        cause=_cause(status.last_exit),
        note=note,
    )


def _status(client: httpx.Client, key: str | None) -> tuple[_Status, str]:
    """Return the figures, or none and why."""
    answer = _get(client, "/status", headers={"Authorization": f"Bearer {key}"} if key else {})
    if answer.status_code == 401:
        wrong = "the key is not this replica's" if key else "figures need the key"
        return _Status(), f"{wrong}; name its file with --api-key-file (API_KEY_FILE)"
    if answer.status_code == 404:
        return _Status(), "this replica's version has no figures"
    return (_parsed(_Status, answer), "") if answer.is_success else (_Status(), "")


def _cause(last: LastExit | None) -> str:
    if last is None or not last.cause:
        return ""
    status = "" if last.status is None else f" (exit status {last.status})"
    return ": ".join(filter(None, [f"{last.cause}{status}", last.root or last.sentence]))


def _get(client: httpx.Client, path: str, **how: Any) -> httpx.Response:
    return http.whole(client, "GET", path, TIMEOUT, **how)


def _parsed(model: type[_Answer], answer: httpx.Response) -> _Answer:
    return model.model_validate_json(answer.content)
