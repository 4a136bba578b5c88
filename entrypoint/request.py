"""What was asked for, before any profile is read: choices, and the two layers that users write at launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import ConfigError
from .plan import Setting, shown


def agreed(name: str, one: Setting | None, other: Setting) -> Setting:
    """Return what two sources of one layer say of a setting; raise ConfigError, naming both, when they differ."""
    if one is not None and one.value != other.value:
        said = " and ".join(f"{setting.origin} = {shown(name, setting.value)}" for setting in (one, other))
        raise ConfigError(f"{said} contradict each other; keep one of the two.")
    return one or other


@dataclass(frozen=True)
class Layer:
    """Settings of one source, by name; later layers win."""

    flags: Mapping[str, Setting] = field(default_factory=dict)
    env: Mapping[str, Setting] = field(default_factory=dict)
    supervision: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """
    The command line over the environment.

    `choices` (profile, model, hardware, nccl) carry their origins. `operator` is the process environment, from which
    variables that the plan sets, and every VLLM_* and NCCL_* variable, are taken.
    """

    choices: Mapping[str, Setting] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    environment: Layer = field(default_factory=Layer)
    command_line: Layer = field(default_factory=Layer)
    operator: Mapping[str, str] = field(default_factory=dict)
