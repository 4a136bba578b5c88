"""Overwrite secrets in the arguments of this process, which everyone on its host can read in /proc/PID/cmdline."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path

from .secret import forms

_ARG_START = 48  # field of proc(5)'s stat, from 1


def hide(secrets: Iterable[str]) -> bool:
    """Overwrite each secret with `*`; tell whether none is left. Processes that started this one may hold a copy."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        start, end = (int(field) for field in fields[_ARG_START - 3 : _ARG_START - 1])
        data = Path("/proc/self/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    if not start or len(data) != end - start:
        return False
    written = {form for secret in secrets if secret for form in (secret, *forms(secret))}
    for secret in sorted((text.encode("utf-8", "surrogateescape") for text in written), key=len, reverse=True):
        at = data.find(secret)
        while at >= 0:
            ctypes.memset(start + at, ord("*"), len(secret))
            at = data.find(secret, at + len(secret))
    return True
