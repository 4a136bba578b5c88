"""What of a result can be published: verdicts and figures, and sentences without paths, addresses or names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from .. import shared_result
from ..smoke.outcome import Outcome, Verdict

LONGEST = 300
"""Characters of a sentence."""
CUT = "(cut)"
_VERDICTS: Mapping[Verdict, str] = {"passed": "pass", "failed": "fail", "inconclusive": "skip", "skipped": "skip"}
_SMALL = "dummy weights: small checkpoints with a known answer"
_CUT = re.compile(
    r"'[/~\\][^']*'|\"[/~\\][^\"]*\"|(?<![\w.])[/~\\][^\s;,)]+|\b[A-Za-z]:\\\S+|\w+://\S+"
    r"|\bGPU-[0-9a-f-]{8,}|\b[0-9a-fA-F]{12,}\b|\b(?:\d{1,3}\.){3}\d{1,3}\b"
)
"""Paths, addresses, and what names one GPU or one machine."""


def shared(
    outcomes: Sequence[Outcome], replica: Mapping[str, Any], day: date, private: Sequence[str]
) -> dict[str, Any]:
    """Return the file to share; `private` are words that no sentence may hold, such as the name of this host."""
    full: Mapping[str, Any] = next((one.figures for one in outcomes if one.name == "full-size"), {})
    checks = [
        {"name": one.name, "verdict": _VERDICTS[one.verdict], "detail": published(one.seen, private)}
        for one in outcomes
    ]
    parts: dict[str, Any] = {"checks": checks}
    if full.get("rows"):
        parts["rows"] = full["rows"]
    return shared_result.shared("qualify", replica, str(full.get("weights") or _SMALL), day, **parts)


def published(text: str, private: Sequence[str]) -> str:
    """Return a sentence without what names a person or a place; nothing where that cannot be cut out."""
    for word in sorted(filter(None, private), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", CUT, text)
    text = _CUT.sub(CUT, text)[:LONGEST]
    return "" if shared_result.unfit(text) else text
