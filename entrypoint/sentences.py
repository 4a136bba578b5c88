"""Text that another sentence follows."""

from __future__ import annotations

_ENDS = (".", "?", "!")


def ended(text: str) -> str:
    """Return a text with a period at its end, unless it ends as a sentence does, and without space after it."""
    text = text.rstrip()
    return text if text.endswith(_ENDS) else f"{text}."
