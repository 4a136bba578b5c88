"""A terminal that a command has to itself: drawn over at each frame, and given back as it was however that ends."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J", "\x1b[?25h\x1b[?1049l"  # the other screen, without a cursor


def possible(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Tell whether the stream is a terminal that can be drawn over."""
    return stream.isatty() and environ.get("TERM", "") not in ("", "dumb")


class FullScreen:
    """The terminal of stdout; keys come from stdin where that is a terminal."""

    def draw(self, lines: Sequence[str]) -> None:
        """Draw one frame over the last one."""
        sys.stdout.write("\x1b[H" + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
        sys.stdout.flush()

    def key(self, seconds: float) -> str:
        """Return a key that is pressed within some time; empty without one."""
        if not sys.stdin.isatty():
            select.select([], [], [], seconds)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if ready else ""

    def size(self) -> tuple[int, int]:
        """Return columns and lines: the terminal's own, since COLUMNS and LINES do not follow it."""
        try:
            return os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return shutil.get_terminal_size()


@contextlib.contextmanager
def opened() -> Iterator[FullScreen]:
    """Take the terminal during the block; Ctrl-Z gives it back until the command continues, Ctrl-\\ for good."""
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(keys) if keys is not None else None

    def enter() -> None:
        if keys is not None:
            tty.setcbreak(keys)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()

    def leave() -> None:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)

    def suspend(_number: int, _frame: object) -> None:
        leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter()

    def quit_(number: int, _frame: object) -> None:
        leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before_signals = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGTSTP, suspend), (signal.SIGQUIT, quit_))
    }
    try:
        enter()
        yield FullScreen()
    finally:
        leave()
        for number, handler in before_signals.items():
            signal.signal(number, handler)
