"""What was requested, before any profile is read: choices, and the two layers that users write at launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import ConfigError
from .plan import Setting, shown


def agreed(name: str, one: Setting | None, other: Setting) -> Setting:
    """Return the setting that two sources of one layer agree on; raise ConfigError, naming both, when they differ."""
    if one is not None and one.value != other.value:
        both = " and ".join(f"{setting.origin} = {shown(name, setting.value)}" for setting in (one, other))
        raise ConfigError(f"{both} contradict each other; keep one of the two.")
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

    def flag(self, name: str) -> Setting | None:
        """Return what the request sets a flag to: the command line wins over the environment."""
        return self.command_line.flags.get(name) or self.environment.flags.get(name)
