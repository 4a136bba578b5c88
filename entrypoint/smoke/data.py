"""The two data files of the smoke test: what is asked, and what is on record of a model."""

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
    What is known of a model beforehand.

    `constructed` says why it follows no instruction, and is empty for a trained one. `acceptance` is a share of draft
    tokens by kind of prompt, as `source` saw it; empty where there is no figure.
    """

    constructed: str = ""
    acceptance: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@cache
def prompts() -> Mapping[str, Any]:
    """Return `prompts.toml`, which says what its keys mean."""
    return _read("prompts.toml")


def on_record(model: str, draft_tokens: int) -> OnRecord:
    """Return what is on record of a model, by its name and the draft tokens of a step."""
    entry = _read("models.toml").get(model, {})
    figures = (one for one in entry.get("acceptance", ()) if one["draft-tokens"] == draft_tokens)
    figure: dict[str, Any] = next(figures, {})
    return OnRecord(entry.get("constructed", ""), figure.get("kinds", {}), figure.get("source", ""))


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
