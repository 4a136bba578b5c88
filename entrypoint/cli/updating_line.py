"""One line of a terminal that is written over as work goes on; in a pipe there is none."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from ..terminal import printable
from .output import print_message

_NARROWEST = 20  # columns; below, a line that is written over would wrap


class UpdatingLine:
    """
    Messages on stderr, and below them the line, where stderr is a terminal that can be written over.

    It has no colours, so NO_COLOR changes nothing.
    """

    def __init__(self, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream or sys.stderr
        dumb = environ.get("TERM", "") in ("", "dumb")
        columns = shutil.get_terminal_size().columns
        self._columns = 0 if dumb or not self._stream.isatty() or columns < _NARROWEST else columns
        self._shown = False

    @property
    def watch(self) -> Callable[[str], None] | None:
        """Show a text in the line; None where there is no line."""
        return self._show if self._columns else None

    def message(self, text: str) -> None:
        """Print a message, above the line."""
        self._clear()
        print_message(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def _show(self, text: str) -> None:
        self._columns = shutil.get_terminal_size().columns
        text = " ".join(printable(text).split())
        most = max(1, self._columns - 1)  # a full last column makes some terminals wrap
        self._stream.write(f"\r{text if len(text) <= most else text[: most - 1] + '…'}\x1b[K")
        self._stream.flush()
        self._shown = True

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False
