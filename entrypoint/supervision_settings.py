"""
The settings of the supervisor, under `[gate]` and `[supervise]`: their defaults, and how they are read and checked.

They are layered like vLLM's flags, and named `gate.tokens`, `supervise.stall.loading-weights`. In the environment a
name becomes DSV4_GATE_TOKENS; on the command line `--gate.tokens 32`. Times are seconds, shares run from 0 to 1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from . import draft_floors
from .draft_floors import Floors
from .errors import ConfigError, SeveralProblems, UsageError, gathered, nearest
from .plan import DEFAULT, Setting, Value, nested
from .validation import reason

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Drafter = Literal["mtp", "dspark"]
SignName = Literal[
    "script-mix",
    "repetition",
    "logprobs",
    "replacement",
    "special-tokens",
    "empty",
    "known-answers",
    "prompt-independence",
]


class _Group(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), validate_by_name=False
    )


class Gate(_Group):
    """What a replica must prove before it receives traffic."""

    acceptance_floor: Share | dict[Count, Share] = {}
    """The lowest share of draft tokens that must be accepted for the test prompts: one share, or one for each number of
    draft tokens; else the mean of `position-floors` over the positions of a draft. No position is held to more than it;
    0 accepts any drafter that drafts."""
    position_floors: dict[Drafter, list[Share]] = {
        "mtp": [0.4, 0.2, 0.15],
        "dspark": [0.35, 0.25, 0.15, 0.1, 0.08, 0.05],
    }
    """The lowest share of drafts that must be accepted up to each position, by kind of drafter; the last one holds for
    later positions. Each lies between what was published of sound and of broken drafters (third-party figures,
    2026-05 to 2026-09, unmeasured here): docs/explanation/health.md."""
    below_floor: Literal["refuse", "warn", "degrade"] = "refuse"
    """What happens below the floor: `refuse` ends with status 85, `warn` serves, and `degrade` starts again
    without the draft head."""
    corrupted: Literal["refuse", "warn"] = "refuse"
    """What happens when the corruption canary fails: `refuse` ends with status 86, and `warn` serves."""
    tokens: Count = 48
    """Tokens generated for each test prompt."""
    concurrency: Count = 8
    """Prompts sent at once in the corruption canary, at most `max-num-seqs`."""
    agreement_floor: Share = 0.5
    """The share of an answer, from its start, that must be the same alone and with concurrent requests."""
    signs: list[SignName] = list(get_args(SignName))
    """The signs of garbling that the corruption canary looks for. It fails when two prompts show one; one is a
    warning."""


class Supervise(_Group):
    """How the engine is watched, and how it is stopped."""

    poll: Seconds = 2.0
    """Seconds between two reads of vLLM's counters."""
    ready_grace: Seconds = 35.0
    """Seconds without progress, while there is work, until `/readyz` fails: the longest step known (31 s, a kernel
    compiled during inference) and two polls. Where it is not set, a plan with larger steps gets longer:
    `max-num-batched-tokens` at 500 tokens/s."""
    live_grace: Seconds = 120.0
    """Seconds without progress, while there is work, until the engine is ended as hung. Longer than one step with the
    longest prompt. Where it is not set, it is at least twice what `ready-grace` allows the tokens of a step."""
    gpu_faults: Literal["not-ready", "warn"] = "not-ready"
    """What happens when a GPU fails while vLLM serves: `not-ready` takes the replica out of rotation, `warn` only says
    so."""
    idle_canary_every: Seconds = 10.0
    """Seconds between two requests of one token while nothing else runs."""
    corruption_every: Seconds = 1800.0
    """Seconds between two corruption canaries after the start. One that is due during traffic waits until its tokens
    are at most 0.5 % of those that traffic generated since the last one."""
    window: Seconds = 300.0
    """Seconds of live traffic over which acceptance is watched."""
    window_drafts: Count = 500
    """The minimum of draft tokens in the window for a verdict."""
    drain_wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    """Seconds between `not ready` and SIGTERM for vLLM, for the balancer to notice. Ctrl-C skips it."""
    stop_grace: Seconds = 20.0
    """Seconds that vLLM has to release the GPUs after its `shutdown-timeout`, before SIGKILL."""
    backoff_first: Seconds = 10.0
    """Seconds to wait after the second consecutive failure of a plan; doubled after each further one."""
    backoff_most: Seconds = 900.0
    """The longest wait after failures, in seconds."""
    healthy_after: Seconds = 600.0
    """Seconds ready after which earlier failures are forgotten."""
    prebuild: list[str] = []
    """Modules of FlashInfer to compile during a first start, as `MODULE:FUNCTION`; empty for none."""
    fetch: bool = True
    """Whether `serve` fetches weights that the Hub's cache lacks before it starts vLLM. Without that, vLLM downloads
    them itself."""
    prefetch: bool = False
    """Whether `serve` reads the weights into the page cache while vLLM starts, if memory can hold them."""
    spare_processes: bool = True
    """Whether vLLM's processes import at the same time instead of one after the other. On one H200 that saved 15 s of a
    start."""
    stall: dict[str, Seconds] = {
        "fetching-weights": 600.0,
        "starting": 180.0,
        "connecting-ranks": 60.0,
        "loading-weights": 600.0,
        "compiling-kernels": 1200.0,
        "profiling": 300.0,
        "capturing-graphs": 600.0,
        "warming-up": 1200.0,
        "proving": 600.0,
    }
    """Seconds without progress until a startup is ended, by phase."""


class Supervision(_Group):
    """Both groups, as the supervisor reads them."""

    gate: Gate = Gate()
    supervise: Supervise = Supervise()

    def floors(self, drafter: str, draft_tokens: int) -> Floors:
        """
        Return the floors of a drafter that makes this number of draft tokens.

        In a table, the floor of the next larger number listed holds too; above the largest, that of the positions.
        """
        table = self.gate.acceptance_floor
        listed = {draft_tokens: table} if not isinstance(table, dict) else table
        total = listed.get(min((k for k in listed if k >= draft_tokens), default=0))
        positions = {str(name): shares for name, shares in self.gate.position_floors.items()}
        return draft_floors.floors(positions.get(drafter, []), draft_tokens, total)


GROUPS: Mapping[str, type[_Group]] = {"gate": Gate, "supervise": Supervise}
_TABLES: Mapping[str, Any] = {
    "gate.acceptance-floor": dict[Count, Share],
    "gate.position-floors": dict[Drafter, list[Share]],
    "supervise.stall": dict[str, Seconds],
}
_LISTS = ("gate.signs", "supervise.prebuild", "gate.position-floors.")
_RENAMED = {"supervise.compile-ahead": "supervise.prebuild"}
ENVIRONMENT = ("DSV4_GATE_", "DSV4_SUPERVISE_")


def defaults() -> dict[str, Setting]:
    """Return every setting with its default."""
    return dict(_defaults())


@functools.cache
def _defaults() -> dict[str, Setting]:
    whole = Supervision().model_dump(by_alias=True)
    return {name: Setting(value, DEFAULT) for name, value in _leaves(whole)}


def names() -> list[str]:
    """Return the name of every setting that the environment can hold."""
    floor = "gate.acceptance-floor"
    return [*defaults(), floor, *(f"{floor}.{draft_tokens}" for draft_tokens in range(1, 8))]


def settings(table: Mapping[str, Value], origin: str) -> dict[str, Value]:
    """Return checked settings for `{"gate": {…}, "supervise": {…}}`; raise ConfigError for an invalid one."""
    return {name: check(name, value, origin) for name, value in _leaves(table)}


def check(name: str, value: Value, origin: str) -> Value:
    """Return a value converted to its setting's type; raise ConfigError for an unknown name or an invalid value."""
    if name in _RENAMED:
        raise ConfigError(f"{origin}: {name} was renamed to {_RENAMED[name]}; use the new name.")
    group, key, *inner = name.split(".")
    fields = _fields(group)
    below = list(Supervise().stall) if name.startswith("supervise.stall.") else []
    if key not in fields or (inner and f"{group}.{key}" not in _TABLES) or (below and ".".join(inner) not in below):
        known = below or list(fields)
        hint = nearest(".".join(inner) if below else key, known)
        raise ConfigError(f"{origin}: there is no setting {name!r}{hint}. Valid names: {', '.join(known)}.")
    if inner:
        value = {".".join(inner): value}
    try:
        read = _validator(group, key, bool(inner)).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        shown = value[".".join(inner)] if inner else value
        raise ConfigError(f"{origin}: {name} = {shown!r} is not valid: {reason(first['msg'])}.") from None
    return next(iter(read.values())) if inner else read


@functools.cache
def _fields(group: str) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in GROUPS[group].model_fields.items()}


@functools.cache
def _validator(group: str, key: str, table: bool) -> TypeAdapter[Any]:
    if table:
        return TypeAdapter(_TABLES[f"{group}.{key}"])
    return TypeAdapter(_fields(group)[key].rebuild_annotation())


def from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    """Return the settings from DSV4_GATE_* and DSV4_SUPERVISE_*; raise ConfigError for an unknown one."""
    known = {variable_of(name): name for name in [*names(), *_RENAMED]}
    settings: dict[str, Setting] = {}
    problems: list[str] = []
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT) or not text:
            continue
        origin = f"environment {variable}"
        if variable not in known:
            problems.append(f"{origin}: there is no such setting{nearest(variable, known)}; correct or unset it.")
            continue
        name = known[variable]
        read = functools.partial(check, name, _parts(name, text), origin)
        settings[name] = Setting(gathered(problems, read, None), origin)
    if problems:
        raise SeveralProblems(problems)
    return settings


def from_command_line(arguments: Sequence[str]) -> tuple[dict[str, Setting], list[str], list[str]]:
    """Return the settings from `--gate.X VALUE` and `--supervise.X=VALUE`, the other arguments, and every problem."""
    settings: dict[str, Setting] = {}
    others: list[str] = []
    problems: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith(("--gate.", "--supervise.")):
            others.append(argument)
            continue
        name, equals, text = argument[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"--{name} needs a value.")
            text = rest.pop(0)
        origin = f"command line --{name}"
        read = functools.partial(check, name, _parts(name, text), origin)
        settings[name] = Setting(gathered(problems, read, None), origin)
    return settings, others, problems


def read(settings: Mapping[str, Setting]) -> Supervision:
    """Return a plan's settings laid over the defaults; raise ConfigError for one that this version lacks."""
    plan = "the replica's plan (from another version of dsv4?)"
    known = {name: check(name, setting.value, plan) for name, setting in settings.items()}
    return Supervision.model_validate(nested({name: s.value for name, s in defaults().items()} | known))


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for group, values in table.items():
        for key, value in values.items():
            if f"{group}.{key}" in _TABLES and isinstance(value, dict):
                yield from ((f"{group}.{key}.{inner}", leaf) for inner, leaf in value.items())
            else:
                yield f"{group}.{key}", value


def _parts(name: str, text: str) -> Value:
    return text.replace(",", " ").split() if name.startswith(_LISTS) else text


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return "DSV4_" + name.upper().replace("-", "_").replace(".", "_")
