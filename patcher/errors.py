"""Every failure that a user can cause, with its exit status (sysexits.h)."""

from __future__ import annotations


class PatcherError(Exception):
    """Something outside this program must change; the message names it in one or two sentences."""

    exit_status = 1


class NotApplicable(PatcherError):
    """The tree differs from the one that the series was made for."""

    exit_status = 1


class PatcherUsageError(PatcherError):
    """The command line is not valid (EX_USAGE)."""

    exit_status = 64


class DataError(PatcherError):
    """A series or a patch is malformed (EX_DATAERR)."""

    exit_status = 65


class TreeError(PatcherError):
    """The tree cannot be used: wrong version, symbolic link, not writable, interrupted, no vLLM (EX_CONFIG)."""

    exit_status = 78
