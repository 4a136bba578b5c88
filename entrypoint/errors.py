"""Every failure that a user can cause, with its exit status (sysexits.h; 126 and 127 as a shell answers)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside this program has to change; the message says what, in one or two sentences."""

    exit_status = 1


class UsageError(UserError):
    """The command line is not one that `dsv4` understands (EX_USAGE)."""

    exit_status = 64


class ConfigError(UserError):
    """A profile, a variable or a flag is unknown, malformed, out of range or contradicts another (EX_CONFIG)."""

    exit_status = 78


class HostError(UserError):
    """This host cannot do it as it is: a port is held, a disk is full, a folder cannot be written (EX_UNAVAILABLE)."""

    exit_status = 69


class NotExecutable(UserError):
    """The command was found and cannot be executed."""

    exit_status = 126


class NotFound(UserError):
    """The command was not found."""

    exit_status = 127


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the known name nearest to `name`, or an empty string."""
    folded = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1)
    return f" (did you mean {folded[found[0]]}?)" if found else ""


def listed(names: Iterable[str]) -> str:
    """Return `a, b, c` in order, for the sentence that says what is allowed."""
    return ", ".join(sorted(names))
