"""
A file of API keys: lines of `NAME KEY [requests a minute] [concurrent requests]`, or one bare key.

The middleware in vLLM's own process reads it too: this module imports the standard library and `plain_file` only.
deploy/haproxy/keys.lua has the same rules; tests/deploy/test_keys.py compares both.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import plain_file

BARE = "default"
"""The name of a bare key."""
LONGEST = 4096
"""Characters of a key; balancers and servers refuse longer headers."""
SHORTEST, DISTINCT = 16, 6
"""A named key has at least so many characters, and so many different ones."""
MOST_NAMES = 1000
"""Names in one file: each is a label of several metrics."""
MOST = 1_000_000
"""The highest limit."""
REREAD, SETTLED = 1.0, 0.5
"""Seconds between two reads, and after which a change counts as whole."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LIMIT = re.compile(r"[1-9][0-9]{0,6}")


class KeyFileError(ValueError):
    """A key file that is not valid; the text names the line, and never a key."""


@dataclass(frozen=True)
class KeyHolder:
    """A name, and what it may ask for; None is no limit."""

    name: str
    per_minute: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True)
class KeyLine:
    """One line: a key and its holder."""

    key: str
    holder: KeyHolder


Holders = Mapping[bytes, KeyHolder]
"""Holders by the digest of their key: how long a look-up takes says nothing about a key."""


def digest(key: bytes) -> bytes:
    """Return the SHA-256 of a key."""
    return hashlib.sha256(key).digest()


def parse(data: bytes) -> list[KeyLine]:
    """Return the lines with keys, at least one; raise KeyFileError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KeyFileError("the file is not UTF-8 text") from None
    rows = [(number, line.strip(" \t\r")) for number, line in enumerate(text.split("\n"), 1)]
    rows = [(number, line) for number, line in rows if line and not line.startswith("#")]
    if not rows:
        raise KeyFileError("the file has no key")
    if len(rows) == 1 and len(_fields(*rows[0])) == 1:
        return [KeyLine(_checked(_fields(*rows[0])[0], rows[0][0]), KeyHolder(BARE))]
    lines = [_line(number, _fields(number, line)) for number, line in rows]
    _check_together(lines, [number for number, _ in rows])
    return lines


def holders(lines: list[KeyLine]) -> Holders:
    """Return the holders by digest."""
    return {digest(line.key.encode()): line.holder for line in lines}


class KeyFile:
    """
    A key file that may change while it is used: `current` has its holders.

    A change that is not valid, or a file that is gone, leaves the holders as they were, and is reported once. Where the
    first read fails, raise OSError or KeyFileError; unless it is `required`, there are no holders until it is mended.
    """

    def __init__(self, path: Path, tell: Callable[[str], None], *, required: bool = True) -> None:
        self._path, self._tell = path, tell
        self._read, self._trouble = b"", ""
        self._holders: Holders = {}
        self._next = time.monotonic() + REREAD
        try:
            self._read = plain_file.read(path)
            self._holders = holders(parse(self._read))
        except (OSError, KeyFileError) as error:
            if required:
                raise
            self._keep(error)

    def current(self) -> Holders:
        """Return the holders; at most once a second, look whether the file has changed."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REREAD
            self._look()
        return self._holders

    def _look(self) -> None:
        try:
            data, age = plain_file.read(self._path), time.time() - self._path.stat().st_mtime
            if data == self._read:
                self._trouble = ""
                return
            if 0 <= age < SETTLED:  # somebody may still be writing it
                self._next = time.monotonic() + SETTLED
                return
            found = holders(parse(data))
        except (OSError, KeyFileError) as error:
            self._keep(error)
            return
        self._read, self._trouble = data, ""
        names = {holder.name for holder in self._holders.values()}, {holder.name for holder in found.values()}
        self._holders = found
        added, removed = (", ".join(sorted(one)) or "none" for one in (names[1] - names[0], names[0] - names[1]))
        self._tell(f"key file {self._path}: read again, {len(found)} keys; names added: {added}; removed: {removed}.")

    def _keep(self, error: OSError | KeyFileError) -> None:
        trouble = error.strerror or "" if isinstance(error, OSError) else str(error)
        if trouble != self._trouble:
            self._trouble = trouble
            kept = (
                "The keys from before the change stay; mend it." if self._holders else "No key of it is valid; mend it."
            )
            self._tell(f"KEY FILE NOT VALID: {self._path}: {trouble}. {kept}")


def _fields(number: int, line: str) -> list[str]:
    if not line.isascii() or not line.replace("\t", " ").isprintable():
        raise KeyFileError(f"line {number}: only printable ASCII characters may stand there")
    return line.split()


def _checked(key: str, number: int) -> str:
    if len(key) > LONGEST:
        raise KeyFileError(f"line {number}: the key is longer than {LONGEST} characters")
    return key


def _line(number: int, fields: list[str]) -> KeyLine:
    if not 2 <= len(fields) <= 4:
        raise KeyFileError(f"line {number}: write NAME KEY [REQUESTS-A-MINUTE] [CONCURRENT]")
    name, key, *limits = fields
    if not _NAME.fullmatch(name):
        raise KeyFileError(f"line {number}: a name has up to 64 letters, digits, dots, dashes and underscores")
    if len(_checked(key, number)) < SHORTEST or len(set(key)) < DISTINCT:
        raise KeyFileError(
            f"line {number}: the key is weak; it needs {SHORTEST} characters, {DISTINCT} of them different"
        )
    return KeyLine(key, KeyHolder(name, *(_limit(number, limit) for limit in limits)))


def _limit(number: int, word: str) -> int | None:
    if word == "-":
        return None
    if not _LIMIT.fullmatch(word) or int(word) > MOST:
        raise KeyFileError(f"line {number}: a limit is a number from 1 to {MOST}, or - for none")
    return int(word)


def _check_together(lines: list[KeyLine], numbers: list[int]) -> None:
    keys: dict[str, int] = {}
    names: dict[str, tuple[int, KeyHolder]] = {}
    for line, number in zip(lines, numbers, strict=True):
        if line.key in keys:
            raise KeyFileError(f"line {number}: the same key as in line {keys[line.key]}")
        keys[line.key] = number
        first, holder = names.setdefault(line.holder.name, (number, line.holder))
        if holder != line.holder:
            raise KeyFileError(f"line {number}: {holder.name} has other limits than in line {first}")
    if len(names) > MOST_NAMES:
        raise KeyFileError(f"{len(names)} names; at most {MOST_NAMES} are allowed")
