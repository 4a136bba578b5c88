"""Lines of coloured pieces, cut to the width of a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ..terminal import printable

Colour = Literal["", "good", "open", "bad", "quiet", "bold"]
_CODES: Mapping[Colour, str] = {"good": "32", "open": "33", "bad": "31", "quiet": "2", "bold": "1"}


class Piece(NamedTuple):
    """Text of one colour; it has no colour on a terminal without."""

    text: str
    colour: Colour = ""


Row = Sequence[Piece]


class Look(NamedTuple):
    """The terminal: its size, and whether it has colours and block characters."""

    columns: int = 80
    lines: int = 24
    colours: bool = False
    blocks: bool = True


def rendered(rows: Sequence[Row], look: Look) -> list[str]:
    """Return as many lines as fit, none wider than the terminal; where some do not fit, the last one says so."""
    shown = list(rows)
    if len(shown) > look.lines:
        hidden = len(shown) - look.lines + 1
        shown = [*shown[: look.lines - 1], [Piece(f"… {hidden} more lines; make the window taller", "quiet")]]
    return [_line(row, look) for row in shown]


def bar(share: float, width: int, look: Look) -> str:
    """Return a bar of `width` characters."""
    full = round(max(0.0, min(1.0, share)) * width)
    return ("█" if look.blocks else "#") * full + ("░" if look.blocks else ".") * (width - full)


def _line(row: Row, look: Look) -> str:
    left, out = look.columns, []
    for piece in row:
        text = " ".join(printable(piece.text).splitlines())
        if len(text) > left:
            text = text[: max(0, left - 1)] + ("…" if look.blocks else "~")[:left]
        left -= len(text)
        code = _CODES.get(piece.colour) if look.colours else None
        out.append(f"\x1b[{code}m{text}\x1b[0m" if code and text else text)
    line = "".join(out).rstrip()
    return line if look.blocks else line.encode("ascii", "replace").decode()
