"""Turn [flags] and [env] tables into checked settings: one entry a flag, a key of a JSON flag, or a variable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from dsv4_serve.entrypoint import known
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Value

_KEY = re.compile(r"[A-Za-z0-9_-]+")


def flags(table: Mapping[str, Value], origin: str) -> dict[str, Value]:
    """Return checked settings for a table of vLLM's long flags; raise ConfigError for what vLLM would refuse."""
    settings: dict[str, Value] = {}
    for name, value in table.items():
        flag = known.canonical_flag(name, origin)
        if flag != name:
            raise ConfigError(f"{origin}: write {flag} instead of {name}; keys are vLLM's long flags.")
        settings.update(flag_settings(flag, value, origin))
    return settings


def flag_settings(flag: str, value: Value, origin: str) -> dict[str, Value]:
    """Return the settings that one flag makes: itself, or one for each key where the value is a table."""
    if not isinstance(value, dict):
        if known.flag_kind(flag)["type"] == "json":
            raise ConfigError(f"{origin}: {flag} = {value!r} has the wrong type; it has to be a table (JSON object).")
        return {flag: known.check_value(flag, value, origin)}
    if "json" not in known.flag_kind(flag)["type"]:
        raise ConfigError(f"{origin}: {flag} takes a value, not a table.")
    leaves = dict(_leaves(flag, value, origin))
    for setting in leaves:
        known.check_key(setting, origin)
    return {setting: known.check_value(setting, leaf, origin) for setting, leaf in leaves.items()}


def variables(table: Mapping[str, Value], origin: str) -> dict[str, Value]:
    """Return checked environment variables, as strings; raise ConfigError for a VLLM_* one that vLLM does not read."""
    texts = {name: _text(value) for name, value in table.items()}
    for name, text in texts.items():
        known.check_variable(name, text, origin)
    return texts


def _text(value: Value) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _leaves(path: str, table: Mapping[str, Value], origin: str, depth: int = 0) -> Iterator[tuple[str, Value]]:
    for key, value in table.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key) or depth > 8:
            raise ConfigError(f"{origin}: {path} has a key {key!r} that no vLLM setting has; keys are names.")
        if isinstance(value, dict) and value:
            yield from _leaves(f"{path}.{key}", value, origin, depth + 1)
        else:
            yield f"{path}.{key}", value
