"""What a user requests at launch: names, and settings from the environment and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import ConfigError
from .plan import Setting, shown


def agreed(name: str, first: Setting | None, second: Setting) -> Setting:
    """Return the setting that two sources of one layer agree on; raise ConfigError naming both if they differ."""
    if first is not None and first.value != second.value:
        both = " and ".join(f"{setting.origin} = {shown(name, setting.value)}" for setting in (first, second))
        raise ConfigError(f"{both} conflict; remove one of them.")
    return first or second


@dataclass(frozen=True)
class Layer:
    """Settings of one source, by name; later layers win."""

    flags: Mapping[str, Setting] = field(default_factory=dict)
    env: Mapping[str, Setting] = field(default_factory=dict)
    supervision: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """
    The command line laid over the environment.

    `choices` (profile, model, hardware, nccl) carry their origins. `operator` is the process environment, from which
    variables that the plan sets, and every VLLM_* and NCCL_* variable, are taken.
    """

    choices: Mapping[str, Setting] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    environment: Layer = field(default_factory=Layer)
    command_line: Layer = field(default_factory=Layer)
    operator: Mapping[str, str] = field(default_factory=dict)
    in_container: bool = True
    """Whether ports are closed to other machines until somebody publishes them."""
    problems: tuple[str, ...] = ()
    """Flags on the command line that vLLM does not take; a plan cannot be made, but its other problems can be found."""
    online: bool = False
    """Whether the Hub may be asked what a repository holds that is not in the local cache."""
    here: bool = False
    """Whether vLLM starts on this machine: a folder that is not here is then an error."""

    def flag(self, name: str) -> Setting | None:
        """Return what the request sets a flag to: the command line wins over the environment."""
        return self.command_line.flags.get(name) or self.environment.flags.get(name)
