"""Read the scenarios of `dsv4 eval tools` (tool_scenarios.toml, whose head explains the fields)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import toml_file
from ..errors import ConfigError
from ..validation import first_error

FILE = Path(__file__).with_name("tool_scenarios.toml")
KINDS = ("single", "parallel", "chained", "nested", "refusal", "long", "unicode")


class ExpectedCall(BaseModel):
    """One call that a scenario expects, and what the tool returns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arguments: dict[str, Any]
    result: str


class Scenario(BaseModel):
    """One task with its tools; `steps` are lists of expected calls."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["single", "parallel", "chained", "nested", "refusal", "long", "unicode"]
    tools: tuple[str, ...]
    ask: str
    steps: tuple[tuple[ExpectedCall, ...], ...] = ()
    answer: tuple[str | tuple[str, ...], ...] = ()
    together: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: dict[str, dict[str, Any]]
    scenario: tuple[Scenario, ...]


@cache
def read(path: Path = FILE) -> tuple[Mapping[str, dict[str, Any]], tuple[Scenario, ...]]:
    """Return the tools by name, in the form of a request, and the scenarios; raise ConfigError for an invalid file."""
    try:
        file = _File.model_validate(toml_file.read(path))
    except ValidationError as error:
        where, what = first_error(error)
        raise ConfigError(f"{path}: {where!r}: {what}; its head explains the fields.") from None
    functions = {name: {"type": "function", "function": {"name": name, **tool}} for name, tool in file.tools.items()}
    return functions, file.scenario
