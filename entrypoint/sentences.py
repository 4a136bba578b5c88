"""Text that another sentence follows."""

from __future__ import annotations


def ended(text: str) -> str:
    """Return a text with a period at its end, which it may have."""
    return text if text.endswith(".") else f"{text}."
