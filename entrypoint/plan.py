"""
A plan: every setting of one vLLM server with its value and its origin.

A setting is named by vLLM's long flag (`max-model-len`), by flag and key where the flag takes JSON
(`speculative-config.method`), or by its environment variable (`NCCL_PROTO`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .secret import MASK, masked, secrets_in

Value = Any  # what TOML and JSON can hold: str, int, float, bool, list, and tables of these

DRAFT_TOKENS = "speculative-config.num_speculative_tokens"
TENSOR_PARALLEL_SIZE = "tensor-parallel-size"
API_KEY = "VLLM_API_KEY"
"""The variable that hands the bearer key to vLLM."""
KEY_FILE = "API_KEY_FILE"
"""The variable that names the file of the clients' keys."""
TUNED_KERNELS = "VLLM_TUNED_CONFIG_FOLDER"
"""The variable that names the folder of tables of measured kernels."""
DEFAULT = "default of dsv4"


@dataclass(frozen=True)
class Setting:
    """A value, where it came from, and what it replaced (nearest first)."""

    value: Value
    origin: str
    overridden: tuple[Setting, ...] = ()
    of_profile: bool = False
    """Whether a table of the selected profile sets it, or of one that this extends."""


@dataclass(frozen=True)
class Plan:
    """
    One server, resolved.

    `choices` are selected names (profile, model, hardware), `flags` become arguments,
    `env` becomes environment variables, `supervision` configures our supervisor (gate.*, supervise.*).
    """

    choices: Mapping[str, Setting]
    flags: Mapping[str, Setting]
    env: Mapping[str, Setting]
    shapes: Mapping[str, str] = field(default_factory=dict)
    """How a flag is written if not as `--flag VALUE` (JSON for lists and tables): see `vllm_schema.schema.shapes`."""
    supervision: Mapping[str, Setting] = field(default_factory=dict)

    def value(self, flag: str, otherwise: Value = None) -> Value:
        """Return a flag's value, or `otherwise` where the plan does not set it."""
        return self.flags[flag].value if flag in self.flags else otherwise

    @property
    def tensor_parallel_size(self) -> int:
        """GPUs of one tensor parallel group; vLLM's default is 1."""
        return int(self.value(TENSOR_PARALLEL_SIZE, 1))

    @property
    def draft_tokens(self) -> int:
        """Draft tokens per step; 0 without speculation."""
        return draft_tokens(plain(self.flags))

    def argv(self, *, secrets: bool = False) -> list[str]:
        """Return the command as a list of arguments; secret values are masked unless `secrets`."""
        return [argument for group in self._grouped(secrets=secrets) for argument in group]

    def split_argv(self) -> tuple[list[str], dict[str, str | list[str]]]:
        """Return the arguments of the command without the flags that hold a secret, and the values of those flags."""
        secret = {name.partition(".")[0] for name, s in self.flags.items() if secrets_in(name, s.value)}
        flags = {f"--{name}" for name in secret if self.shapes.get(name) != "repeated"}
        command, *groups = self._grouped(secrets=True)
        values = {flag.removeprefix("--"): rest for flag, *rest in groups if flag in flags}
        shown = [argument for group in groups if group[0] not in flags for argument in group]
        return [*command, *shown], {name: rest[0] if len(rest) == 1 else rest for name, rest in values.items()}

    def secrets(self) -> set[str]:
        """Return every secret that it holds."""
        settings = {**self.flags, **self.env}.items()
        each = ((name, value) for name, s in settings for value in (s.value, *(old.value for old in s.overridden)))
        return {secret for name, value in each for secret in secrets_in(name, value)}

    def _grouped(self, *, secrets: bool = False) -> list[list[str]]:
        """Return the command, and each flag with its values."""
        values = {name: shown(name, s.value, secrets=secrets) for name, s in self.flags.items() if s.value is not None}
        if values.get(DRAFT_TOKENS) == 0:
            values = {name: value for name, value in values.items() if not name.startswith("speculative-config.")}
        model = [str(values.pop("model"))] if "model" in values else []
        return [
            ["vllm", "serve", *model],
            *(group for name, value in sorted(nested(values).items()) for group in self._arguments(name, value)),
        ]

    def _arguments(self, name: str, value: Value) -> list[list[str]]:
        shape = self.shapes.get(name, "")
        if value is True:
            return [[f"--{name}"]]
        if value is False:
            return [[f"--no-{name}"]] if shape == "negatable" else []
        if isinstance(value, list) and shape == "repeated":
            return [[f"--{name}", str(item)] for item in value]
        if isinstance(value, list) and shape == "spread":
            return [[f"--{name}", *map(str, value)]]
        if isinstance(value, (dict, list)):
            return [[f"--{name}", json.dumps(value, separators=(",", ":"))]]
        return [[f"--{name}", str(value)]]

    def environment(self, *, secrets: bool = False) -> dict[str, str]:
        """Return the environment variables that the plan sets."""
        return {name: str(shown(name, s.value, secrets=secrets)) for name, s in sorted(self.env.items())}

    def settings(self) -> dict[str, Setting]:
        """Return every setting by name: choices first, then flags, variables and supervision."""
        rest = (self.flags, self.env, self.supervision)
        return {**self.choices, **{name: part[name] for part in rest for name in sorted(part)}}

    def command(self) -> str:
        """Return one shell command, with its environment, that starts this server when pasted."""
        variables = [f"{name}={_quoted_secret(name, value)}" for name, value in self.environment().items()]
        command, *flags = map(shlex.join, self._grouped())
        return " \\\n".join([*variables, command, *(f"  {flag}" for flag in flags)])

    def to_json(self) -> dict[str, Any]:
        """Return `{"argv", "env", "settings"}`; secret values are masked."""
        return {
            "argv": self.argv(),
            "env": self.environment(),
            "settings": {name: _setting_json(name, s) for name, s in self.settings().items()},
        }


def plain(settings: Mapping[str, Setting]) -> dict[str, Value]:
    """Return the values of settings, by name."""
    return {name: setting.value for name, setting in settings.items()}


def draft_tokens(values: Mapping[str, Value]) -> int:
    """Return the draft tokens per step that these values of flags set; 0 without speculation."""
    speculates = any(name.startswith("speculative-config.") for name in values)
    return int(values.get(DRAFT_TOKENS, 1)) if speculates else 0


def nested(flat: Mapping[str, Value]) -> dict[str, Value]:
    """Turn `{"a.b": 1}` into `{"a": {"b": 1}}`; flags without a dot stay as they are."""
    tree: dict[str, Value] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def shown(name: str, value: Value, *, secrets: bool = False) -> Value:
    """Return a value for printing: secrets are masked unless `secrets`."""
    return value if secrets else masked(name, value)


def _quoted_secret(name: str, value: str) -> str:
    return f'"${name}"' if value == MASK else shlex.quote(value)


def _setting_json(name: str, setting: Setting) -> dict[str, Any]:
    return {
        "value": shown(name, setting.value),
        "origin": setting.origin,
        "overridden": [{"value": shown(name, s.value), "origin": s.origin} for s in setting.overridden],
    }
