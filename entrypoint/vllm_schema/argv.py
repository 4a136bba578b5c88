"""Parse vLLM's own arguments, as vLLM would, into settings with their origins."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from .. import secret
from ..errors import ConfigError, SeveralProblems, UsageError, problems_of
from ..plan import Setting, Value, nested
from ..request import agreed
from . import schema
from . import settings as flatten

_LEVEL = re.compile(r"^-O=?(?=\d)")  # -O3 and -O=3
_UNSUPPORTED = {
    "config": "put its settings into a profile file, so that `dsv4 explain` can show their origin",
}


def read(argv: Sequence[str]) -> dict[str, Setting]:
    """
    Return settings by name.

    Raise UsageError for an argument that is not a flag or lacks its value, ConfigError for the flags and values that
    vLLM does not take and for a flag that is given twice with different values.
    """
    settings, problems = read_all(argv)
    if problems:
        raise SeveralProblems(problems)
    return settings


def read_all(argv: Sequence[str]) -> tuple[dict[str, Setting], list[str]]:
    """Return the settings that vLLM takes, and every problem of the others."""
    settings: dict[str, Setting] = {}
    problems: list[str] = []
    rest = list(argv)
    while rest:
        try:
            _read_one(rest, settings)
        except ConfigError as error:
            problems += problems_of(error)
            while rest and not _is_flag(rest[0]):
                rest.pop(0)
    return settings, problems


def _read_one(rest: list[str], settings: dict[str, Setting]) -> None:
    """Move one flag from `rest` into `settings`."""
    spelled, flag, key, values = _take(rest)
    origin = f"command line {spelled}"
    for name, value in _settings(flag, key, values, origin).items():
        before = settings.get(name)
        if before and schema.shapes().get(name) == "repeated":
            settings[name] = Setting([*before.value, *value], origin)
            continue
        settings[name] = agreed(name, before, Setting(value, origin))


def secrets_in(argv: Sequence[str]) -> set[str]:
    """Return every secret in the arguments; in those that vLLM would reject, what their names call one."""
    settings: dict[str, Setting] = {}
    found: set[str] = set()
    rest = list(argv)
    while rest:
        before = list(rest)
        try:
            _read_one(rest, settings)
        except (ConfigError, UsageError):
            while rest and not _is_flag(rest[0]):
                rest.pop(0)
            found |= secret.named_in(" ".join(before[: len(before) - len(rest)]))
    return found.union(*(secret.secrets_in(name, setting.value) for name, setting in settings.items()))


def _take(rest: list[str]) -> tuple[str, str, str, list[Value]]:
    """Remove one flag and its values from `rest`; return it as spelled, its name, its JSON key, its values."""
    argument = rest.pop(0)
    argument = "--optimization-level" if argument == "-O" else _LEVEL.sub("--optimization-level=", argument)
    spelled, glued, value = argument.partition("=")
    if not spelled.startswith("-") or spelled.strip("-") == "":
        raise UsageError(f"{argument!r} is not a vLLM flag; flags begin with --, and values with spaces need quotes.")
    name, dotted, key = spelled.lstrip("-").partition(".")
    name = name.replace("_", "-") if spelled.startswith("--") else name
    origin = f"command line {spelled}"
    switch = name.removeprefix("no-")
    if switch != name and not glued and not dotted and schema.shapes().get(switch) == "negatable":
        return spelled, switch, "", [False]
    if switch != name and glued and schema.shapes().get(switch) == "negatable":
        raise ConfigError(f"{origin}: it does not take a value; write {spelled}, or --{switch}.")
    flag = schema.canonical_flag(name, origin)
    if flag in _UNSUPPORTED:
        raise ConfigError(f"{origin} is not supported; {_UNSUPPORTED[flag]}.")
    kind = schema.flag_kind(flag)
    if glued:
        return spelled, flag, key, [value]
    if kind["type"] == "bool":
        return spelled, flag, key, [True]
    count = len(rest) if kind.get("nargs") in ("+", "*") else 1
    values: list[Value] = []
    while rest and len(values) < count and not _is_flag(rest[0]):
        values.append(rest.pop(0))
    if not values and kind.get("nargs") not in ("?", "*"):
        raise UsageError(f"{spelled} needs a value.")
    return spelled, flag, key, values


def _is_flag(argument: str) -> bool:
    return argument.startswith("-") and not argument[1:].replace(".", "", 1).isdigit() and argument != "-"


def _settings(flag: str, key: str, values: list[Value], origin: str) -> dict[str, Value]:
    kind = schema.flag_kind(flag)
    many = schema.shapes().get(flag) == "spread"
    value: Value = values if many else (values[0] if values else True)
    if key.endswith("+"):
        raise ConfigError(f"{origin} is not supported; leave out the + and write the whole list, as JSON.")
    if key:
        return flatten.flag_settings(flag, nested({key: _json_or_text(str(value))}), origin)
    if isinstance(value, str) and (kind["type"] == "json" or ("json" in kind["type"] and value.lstrip()[:1] == "{")):
        value = _json(value, origin)
    return flatten.flag_settings(flag, value, origin)


def _json(text: str, origin: str) -> Value:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        shown = secret.without_secrets(text)
        raise ConfigError(
            f"{origin}: {shown!r} is not valid JSON ({error}); quote it, as in '{{\"key\": 1}}'."
        ) from None


def _json_or_text(text: str) -> Value:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text
