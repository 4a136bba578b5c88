"""Read one TOML file; errors give file, line and column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import plain_file
from .errors import ConfigError

_DOTS = 100
_NAMES = re.compile(r"^\s*\[[^,\]]*\]|[^=,{]*=")
"""What stands before an equals sign, or between brackets at the start of a line."""
_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


def read(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; raise ConfigError with `file:line:column` if it is not valid."""
    try:
        text = plain_file.read(path).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not valid UTF-8; save the file as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}).") from None
    _check_depth(path, text)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        position = _AT.search(str(error))
        reason = _AT.sub("", str(error))
        if position and position[1]:
            line, column = position[1], position[2]
        else:
            lines = text.split("\n")
            line, column = str(len(lines)), str(len(lines[-1]) + 1)
        raise ConfigError(f"{path}:{line}:{column}: invalid TOML: {reason}.") from None
    except RecursionError:
        raise ConfigError(f"{path}: the tables are nested too deeply; flatten them.") from None
    if "0000" in text and any("\0" in part for part in _texts(tables)):
        raise ConfigError(f"{path}: a text has a null character (\\u0000), which no program can be given; remove it.")
    return tables


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, and the names of tables and keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value:
            yield from _texts(part)
        if isinstance(value, dict):
            yield from _texts(list(value.values()))


def _check_depth(path: Path, text: str) -> None:
    """Raise ConfigError for a key or a table's name of very many parts, which tomllib reads in quadratic time."""
    if text.count(".") <= _DOTS:
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _DOTS and any(part.count(".") > _DOTS for part in _NAMES.findall(line)):
            raise ConfigError(f"{path}:{number}: a key has more than {_DOTS} parts; flatten it.")
