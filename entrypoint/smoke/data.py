"""Read the data files of the smoke test: its prompts, and the record of each model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OnRecord:
    """
    What is known about a model in advance.

    `constructed` says why it follows no instructions; it is empty for a trained model. `acceptance` is a share of draft
    tokens by kind of prompt, measured by `source`; empty without a figure.
    """

    constructed: str = ""
    acceptance: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@cache
def prompts() -> Mapping[str, Any]:
    """Return `prompts.toml`, which explains its keys."""
    return _read("prompts.toml")


def on_record(model: str, draft_tokens: int) -> OnRecord:
    """Return the record of a model, by its name and the draft tokens per step."""
    entry = _read("models.toml").get(model, {})
    figures = (row for row in entry.get("acceptance", ()) if row["draft-tokens"] == draft_tokens)
    figure: dict[str, Any] = next(figures, {})
    return OnRecord(entry.get("constructed", ""), figure.get("kinds", {}), figure.get("source", ""))


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
