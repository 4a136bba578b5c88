"""Every failure that a user can cause, with its exit status."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from .exit_status import ExitStatus

T = TypeVar("T")


class UserError(Exception):
    """Something outside this program must change; the message names it in one or two sentences."""

    exit_status: int = ExitStatus.NO


class UsageError(UserError):
    """The command line is not valid."""

    exit_status = ExitStatus.USAGE


class ConfigError(UserError):
    """A profile, a variable or a flag is unknown, malformed, out of range or in conflict with another."""

    exit_status = ExitStatus.CONFIG


class SeveralProblems(ConfigError):
    """Everything that is wrong with a request, so that one answer is enough."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Number the problems; one alone is the message."""
        self.problems = tuple(dict.fromkeys(problems))
        numbered = [f"{n}. {problem}" for n, problem in enumerate(self.problems, 1)]
        lines = [f"{len(numbered)} problems:", *numbered] if len(numbered) > 1 else list(self.problems)
        super().__init__("\n".join(lines))


def problems_of(error: ConfigError) -> tuple[str, ...]:
    """Return the problems that an error holds: several, or its message."""
    return error.problems if isinstance(error, SeveralProblems) else (str(error),)


def gathered(problems: list[str], read: Callable[[], T], otherwise: T) -> T:
    """Return what a function reads; add its problems to those of the request and return `otherwise` if it cannot."""
    try:
        return read()
    except ConfigError as error:
        problems += problems_of(error)
        return otherwise


class HostError(UserError):
    """This host prevents it: a port is in use, a disk is full, a folder cannot be written."""

    exit_status = ExitStatus.HOST


_OF_HOST = frozenset({
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOTDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ESTALE),
})  # fmt: skip
"""What folders, disks and limits refuse. A file that is missing is none of them: a caller that may miss one says so."""


def of_file(error: BaseException) -> HostError | None:
    """Return the message for a file that cannot be used, such as one in a folder of another user; None for the rest."""
    if not isinstance(error, OSError) or error.errno not in _OF_HOST:
        return None
    named = error.filename if isinstance(error.filename, str) else ""
    return HostError(f"cannot {f'use {named}' if named else 'write a file'} ({error.strerror}).")


class NotExecutable(UserError):
    """The command exists but cannot be executed."""

    exit_status = ExitStatus.NOT_EXECUTABLE


class NotFound(UserError):
    """The command was not found."""

    exit_status = ExitStatus.NOT_FOUND


def closest(name: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """Return the known name nearest to `name`, or None if none is close; `alike` is difflib's ratio, 0 to 1."""
    folded = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=alike)
    return folded[matches[0]] if matches else None


def nearest(name: str, known: Iterable[str], alike: float = 0.6) -> str:
    """Return ` (did you mean X?)` for the known name nearest to `name`, or an empty string."""
    match = closest(name, known, alike)
    return f" (did you mean {match}?)" if match else ""


def closest_release(name: str, known: Iterable[str], alike: float) -> str | None:
    """Return the known model of the same release that is spelled almost so: another number is another model."""
    digits = _digits(name)
    return closest(name, [one for one in known if _digits(one) == digits], alike)


def _digits(name: str) -> list[str]:
    """Return the digits of a name in any order, without zeros: `flash-731` may be `flash-0731`, and V4.1 is not V4."""
    return sorted(re.findall(r"[1-9]", name))


def listed(names: Iterable[str]) -> str:
    """Return `a, b, c`, sorted, to list what is allowed."""
    return ", ".join(sorted(names))
