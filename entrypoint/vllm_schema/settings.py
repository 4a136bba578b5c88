"""Turn [flags] and [env] tables into checked settings: one for each flag, key of a JSON flag, or variable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .. import kv_offloading
from ..errors import ConfigError, SeveralProblems
from ..plan import Value
from . import schema

_KEY = re.compile(r"[A-Za-z0-9_-]+")


def flags(table: Mapping[str, Value], origin: str) -> dict[str, Value]:
    """Return checked settings for a table of vLLM's long flags; raise ConfigError for what vLLM would reject."""
    settings: dict[str, Value] = {}
    for name, value in table.items():
        schema.check_long_flag(name, origin)
        settings.update(flag_settings(name, value, origin))
    return settings


def flag_settings(flag: str, value: Value, origin: str) -> dict[str, Value]:
    """Return the settings that one flag makes: itself, or one for each key where the value is a table."""
    kind = schema.flag_kind(flag)
    if not isinstance(value, dict):
        return {flag: schema.check_value(flag, value, origin)}
    if "json" not in kind["type"]:
        raise ConfigError(f"{origin}: {flag} takes a value, not a table.")
    return {name: schema.check_value(name, leaf, origin) for name, leaf in _leaves(flag, value, origin)}


def variables(table: Mapping[str, Value], origin: str) -> dict[str, Value]:
    """Return checked environment variables, as strings; raise ConfigError for those that vLLM does not read."""
    texts, problems = all_variables(table, origin)
    if problems:
        raise SeveralProblems(problems)
    return texts


def all_variables(table: Mapping[str, Value], origin: str) -> tuple[dict[str, Value], list[str]]:
    """Return the variables that vLLM reads, as strings, and every problem of the others."""
    texts: dict[str, Value] = {}
    problems: list[str] = []
    for name, value in table.items():
        try:
            schema.check_variable(name, _text(value), origin)
        except ConfigError as error:
            problems.append(str(error))
        else:
            texts[name] = _text(value)
    return texts, problems


def _text(value: Value) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _leaves(path: str, table: Mapping[str, Value], origin: str) -> Iterator[tuple[str, Value]]:
    """Yield a setting for each key; an inner table is expanded if its keys are known or plain, else kept whole."""
    for key, value in table.items():
        setting = f"{path}.{key}"
        if not _KEY.fullmatch(key):
            raise ConfigError(f"{origin}: {path} has an invalid key {key!r}; use letters, digits, - and _.")
        schema.check_key(setting, origin)
        # vLLM does not describe the keys of this table, and a user changes one of them, as of all others.
        plain = setting == kv_offloading.EXTRA and isinstance(value, dict) and all(map(_KEY.fullmatch, value))
        if isinstance(value, dict) and value and (plain or schema.keys_of(setting)):
            yield from _leaves(setting, value, origin)
        else:
            yield setting, value
