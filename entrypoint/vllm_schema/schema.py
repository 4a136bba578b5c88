"""
What the pinned vLLM knows (flags, choices, ranges, variables), and the names that it has retired.

`vllm-<version>.json` is generated from vLLM itself by tools/describe_vllm.py; `retired.toml` is written by hand.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import json
import math
import operator
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, listed, nearest
from ..plan import DRAFT_TOKENS, Value
from ..secret import masked

VERSION = "0.32.0"

_HERE = Path(__file__).parent
_DRAFTS: Mapping[str, int] = {"min": 0}  # no draft tokens, no speculation
_PORT: Mapping[str, int] = {"min": 1, "max": 65535}  # vLLM leaves this to bind(), where 0 is any port: nobody finds it
_A_PORT = re.compile(r"(.*[-_.])?port", re.IGNORECASE)
_OF_BYTES = frozenset({"kv-cache-memory-bytes"})
"""Sizes that nobody means as a power of two, so a suffix is not ambiguous."""
_MANY, _TOO_MANY = 12, 30
"""Choices; a message names those near to a value where there are many, and lists no more than 30."""
_SUFFIXED = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG])")


@functools.cache
def facts() -> dict[str, Any]:
    """Return the description of the pinned vLLM: `flags`, `json`, `env`, `metrics`."""
    described: dict[str, Any] = json.loads((_HERE / f"vllm-{VERSION}.json").read_text(encoding="utf-8"))
    return described


@functools.cache
def retired() -> dict[str, Any]:
    """Return the retired names by kind (`flag`, `env`, `json`, `value`), each with the message for it."""
    return tomllib.loads((_HERE / "retired.toml").read_text(encoding="utf-8"))


@functools.cache
def _spellings() -> dict[str, str]:
    flags = facts()["flags"]
    return {alias.lstrip("-"): name for name, flag in flags.items() for alias in flag.get("aliases", ())} | {
        name: name for name in flags
    }


@functools.cache
def shapes() -> dict[str, str]:
    """
    Return how flags are written that are not `--flag VALUE`.

    `switch` has no value, `negatable` also has a `--no-` form, `spread` takes several values after one flag,
    `repeated` is written once for each value.
    """
    return {name: shape for name, flag in facts()["flags"].items() if (shape := _shape(flag))}


def _shape(flag: Mapping[str, Any]) -> str:
    if flag["type"] == "bool":
        return "negatable" if flag.get("negatable") else "switch"
    if flag.get("repeatable"):
        return "repeated"
    return "spread" if flag.get("nargs") in ("+", "*") else ""


def canonical_flag(spelled: str, origin: str) -> str:
    """Return vLLM's long flag for one of its spellings; raise ConfigError for a flag that vLLM does not have."""
    known = _spellings()
    if spelled in known:
        return known[spelled]
    _refuse_retired("flag", spelled, origin)
    raise ConfigError(f"{origin}: vLLM {VERSION} has no flag --{spelled}{nearest(spelled, facts()['flags'])}.")


def check_long_flag(name: str, origin: str) -> None:
    """Raise ConfigError for anything but a long flag of vLLM, as profile files write them."""
    flag = canonical_flag(name, origin)
    if flag != name:
        raise ConfigError(f"{origin}: use {flag} instead of {name}; keys are vLLM's long flags.")


def flag_kind(name: str) -> Mapping[str, Any]:
    """Return what is known of a flag: type, nargs, choices, min, max."""
    kind: Mapping[str, Any] = facts()["flags"][name]
    return kind


def check_key(setting: str, origin: str) -> None:
    """Raise ConfigError if `flag.key` names a key that this JSON flag does not have."""
    flag, *path = setting.split(".")
    table = facts()["json"].get(flag, {})
    for depth, key in enumerate(path):
        keys = table.get("keys", {})
        if not keys or table.get("extras"):
            return
        if key not in keys:
            _refuse_retired("json", setting, origin)
            where = ".".join([flag, *path[:depth]])
            raise ConfigError(f"{origin}: {where} has no key {key!r} in vLLM {VERSION}{nearest(key, keys)}.")
        table = keys[key]


def check_variable(name: str, value: str, origin: str) -> None:
    """Raise ConfigError for a VLLM_* variable that the pinned vLLM does not read, or for an invalid value."""
    if not name.startswith("VLLM_"):
        return
    if name not in facts()["env"]:
        _refuse_retired("env", name, origin)
        hint = nearest(name, facts()["env"], alike=0.85)  # all of them begin alike
        raise ConfigError(f"{origin}: vLLM {VERSION} does not read {name}{hint}; correct or unset it.")
    kind = facts()["env"][name]
    if (choices := kind.get("choices")) and value not in choices:
        raise ConfigError(f"{origin}: {name} = {value!r} is not valid. Allowed values: {listed(choices)}.")
    if kind.get("type") in ("int", "float"):
        number = _as_type(name, value, [kind["type"]], origin)
        if isinstance(number, int) and _A_PORT.fullmatch(name):
            _check_range(name, number, {**_PORT, "min": 0}, origin)  # vLLM reads 0 as unset
    if kind.get("type") == "json" and not _is_json(value):
        given = value[:80] + "…" * (len(value) > 80)
        raise ConfigError(f"{origin}: {name} = {given!r} is not JSON; write {{}} for none of it, or unset it.")


def _is_json(value: str) -> bool:
    """Tell whether a value can be what vLLM reads: JSON, or the name of a file with it, which is not looked for."""
    if value.strip() and not value.lstrip().startswith("{"):
        return True
    try:
        return json.loads(value) is not None
    except (ValueError, RecursionError):  # the latter for tables too deep to read
        return False


def keys_of(setting: str) -> Mapping[str, Any]:
    """Return the keys that vLLM describes for a JSON flag, or for a table within one; empty where it takes anything."""
    keys: Mapping[str, Any] = _kind(setting).get("keys", {})
    return keys


def check_value(setting: str, value: Value, origin: str) -> Value:
    """
    Return `value` as the type that a flag (or a key of a JSON flag) takes.

    Raise ConfigError for a wrong type, a value out of range or outside the choices, and a size with a suffix.
    """
    kind = _kind(setting)
    if kind.get("keys") and not isinstance(value, dict) and not (value is None and kind.get("none")):
        raise ConfigError(
            f"{origin}: {setting} = {masked(setting, value)!r} has the wrong type; it must be a table (a JSON object)."
        )
    if shapes().get(setting) not in ("spread", "repeated"):
        return _scalar(setting, value, kind, origin)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ConfigError(f"{origin}: {setting} needs at least one value.")
    return [_scalar(setting, item, kind, origin) for item in values]


def _kind(setting: str) -> Mapping[str, Any]:
    flag, *path = setting.split(".")
    if not path:
        return {**flag_kind(flag), **facts()["json"].get(flag, {}), **_ours(setting)}
    table: Mapping[str, Any] = facts()["json"].get(flag, {})
    for key in path:
        table = table.get("keys", {}).get(key, {})
    return {**table, **_ours(setting)}


def _ours(setting: str) -> Mapping[str, int]:
    """Return the bounds that vLLM does not state."""
    if setting == DRAFT_TOKENS:
        return _DRAFTS
    return _PORT if _A_PORT.fullmatch(setting) else {}


def _scalar(setting: str, value: Value, kind: Mapping[str, Any], origin: str) -> Value:
    types = kind.get("type", [])
    types = [types] if isinstance(types, str) else list(types)
    if (kind.get("none") and value in ("", "None", None)) or (kind.get("nargs") == "?" and value is True):
        return value or None
    if kind.get("auto") and value == "auto":
        return value
    if setting in _OF_BYTES and isinstance(value, str):
        value = _bytes(value)
    elif kind.get("human") and isinstance(value, str):
        _refuse_suffix(setting, value, origin)
    value = _as_type(setting, value, types, origin)
    if (choices := kind.get("choices")) and isinstance(value, str):
        if _folded(value, kind) in {_folded(str(choice), kind) for choice in choices}:
            return value
        _refuse_retired("value", f"{setting}={value}", origin)
        raise ConfigError(f"{origin}: {setting} = {value!r} is not valid in vLLM {VERSION}{_instead(value, choices)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(setting, value, kind, origin)
    return value


def _instead(value: str, choices: Collection[str]) -> str:
    """End a sentence with every choice, or with those nearest to a value where there are many."""
    if len(choices) <= _MANY:
        return f"{nearest(value, choices)}. Allowed values: {listed(choices)}."
    folded = {choice.lower(): choice for choice in choices}
    near = [folded[name] for name in difflib.get_close_matches(value.lower(), folded)]
    if near:
        return f" (did you mean {' or '.join(near)}?)."
    many = len(choices) > _TOO_MANY
    return f", which has {len(choices)} others." if many else f". Allowed values: {listed(choices)}."


_BOUNDS: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "min": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "max": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def _check_range(setting: str, value: float, kind: Mapping[str, Any], origin: str) -> None:
    bounds = [(phrase, holds, kind[key]) for key, (phrase, holds) in _BOUNDS.items() if key in kind]
    if (isinstance(value, float) and math.isnan(value)) or not all(holds(value, bound) for _, holds, bound in bounds):
        allowed = " and ".join(f"{phrase} {bound}" for phrase, _, bound in bounds) or "a number"
        raise ConfigError(f"{origin}: {setting} = {value} is out of range; it must be {allowed}.")
    if value == 0 and kind.get("auto") and kind.get("min") == -1:  # vLLM parses it, then ends the start
        raise ConfigError(f"{origin}: {setting} = 0 is out of range; it must be at least 1, or -1 for auto.")


def _folded(value: str, kind: Mapping[str, Any]) -> str:
    value = value.lower() if kind.get("ignorecase") else value
    return value.replace("-", "_") if kind.get("ignoredash") else value


_TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a string", "json": "JSON"}
_CHECKS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "json": (dict, list, int, float, bool, type(None)),
}


def _as_type(setting: str, value: Value, types: list[str], origin: str) -> Value:
    for name in types:
        if isinstance(value, _CHECKS[name]) and (name in ("bool", "json") or not isinstance(value, bool)):
            return value
    if isinstance(value, str):
        for name, convert in (("int", int), ("float", float)):
            if name in types:
                try:
                    return convert(value)
                except ValueError:
                    continue
        if "bool" in types and value.lower() in ("true", "false"):
            return value.lower() == "true"
    if not types:
        return value
    allowed = " or ".join(_TYPE_NAMES[name] for name in types)
    shown = masked(setting, value)
    raise ConfigError(f"{origin}: {setting} = {shown!r} has the wrong type; it must be {allowed}.")


def _bytes(text: str) -> Value:
    """Return a number of bytes as vLLM reads it: k, m and g are decimal, K, M and G binary; other text as it is."""
    match = _SUFFIXED.fullmatch(text.strip())
    if not match or (match[2].isupper() and "." in match[1]):
        return text
    base, power = 1024 if match[2].isupper() else 1000, "kmg".index(match[2].lower()) + 1
    return int(float(match[1]) * base**power)


def _refuse_suffix(setting: str, value: str, origin: str) -> None:
    match = _SUFFIXED.fullmatch(value.strip())
    if not match:
        return
    power = "kmg".index(match[2].lower()) + 1
    decimal, binary = (int(float(match[1]) * base**power) for base in (1000, 1024))
    two = 1 << max(decimal - 1, 1).bit_length()  # the power of two that such a suffix usually means
    number = f"probably {two}" if decimal <= two <= binary else f"{decimal} or {binary}"
    letter, factor = match[2].lower(), 1000**power
    raise ConfigError(
        f"{origin}: {setting} = {value!r} is ambiguous, because vLLM reads {letter} as {factor};"
        f" write the whole number, {number}."
    )


def _refuse_retired(kind: str, name: str, origin: str) -> None:
    for pattern, entry in retired().get(kind, {}).items():
        if fnmatch.fnmatchcase(name, pattern):
            raise ConfigError(f"{origin}: {name} does not exist in vLLM {VERSION}. {entry['answer']}")
