"""HTML from values: whatever is not marked as markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as HTML; None is nothing."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else escape(str(value)))


def element(tag: str, *inside: object, kind: str = "") -> Markup:
    """Return `<tag class="kind">inside</tag>`."""
    words = f' class="{escape(kind)}"' if kind else ""
    return Markup(f"<{tag}{words}>{''.join(map(text, inside))}</{tag}>")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table; wide ones scroll by themselves."""
    head = element("tr", *(element("th", one) for one in headings))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("div", element("table", element("thead", head), element("tbody", *body)), kind="wide")


def section(title: str, *inside: object) -> Markup:
    """Return a section under its title."""
    return element("section", element("h2", title), *inside)


def verdict(word: str, good: bool | None) -> Markup:
    """Return a word in the colour of good, bad, or neither."""
    return element("b", word, kind={True: "good", False: "bad", None: "open"}[good])
