"""Tables and links in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; every cell is Markdown, on one line."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def code(*texts: object) -> str:
    """Return texts as code, separated by commas."""
    return ", ".join(f"`{text}`" for text in texts)


def prose(text: str) -> str:
    """Return a plain text as Markdown: what stands between backquotes is code, and brackets and stars are literal."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\[\]*<])", r"\\\1", part) for part in parts)


def linked(text: str, link: str) -> str:
    """Return a text that links to an address, or to a page of docs/ as docs/reference/ names it."""
    label = re.sub(r"([\[\]])", r"\\\1", text)
    return f"[{label}]({link if '//' in link else link.replace('docs/', '../', 1)})"
