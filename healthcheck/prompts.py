"""The fixed prompts of the proofs, read from `prompts.toml`, which explains its keys."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Prompt:
    """The start of a text, its kind, and the properties of a sound continuation."""

    kind: str
    script: str
    text: str
    repeats: bool = False
    expects: str = ""


@cache
def prompts() -> tuple[Prompt, ...]:
    """Return every prompt, in the file's order."""
    with Path(__file__).with_name("prompts.toml").open("rb") as file:
        return tuple(Prompt(**table) for table in tomllib.load(file)["prompt"])
