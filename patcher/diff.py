"""
Read a git diff and apply it to bytes, exactly or not at all.

The grammar is the part of git's that `git format-patch --full-index --no-renames` writes for text files. Anything
else (renames, mode changes, binary hunks, symbolic links, paths outside `vllm/`) is rejected with file and line.
Context and line numbers must match exactly, and the result must have the blob id that the diff names. Pure.
(`patch -F3` puts a hunk of the series into a docstring of vLLM 0.33.0 and reports success; `git apply` needs git in
the image.)
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass

from .errors import DataError, NotApplicable

ABSENT = "0" * 40  # git's id of an absent file
_PATH = re.compile(rb"vllm(?:/[A-Za-z0-9_][\w.+=,()\[\]-]*)+", re.ASCII)
_HEADER = re.compile(rb"diff --git a/(.+) b/(.+)")
_MODE = re.compile(rb"new file mode 100644|deleted file mode 100(?:644|755)")
_INDEX = re.compile(rb"index ([0-9a-f]{40})\.\.([0-9a-f]{40})(?: 100(?:644|755))?")
_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: .*)?")


@dataclass(frozen=True)
class Hunk:
    """Lines that replace lines; `old_at` and `new_at` are indices from 0 into the file before and after."""

    old_at: int
    new_at: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]


@dataclass(frozen=True)
class FileDiff:
    """One file's change, with the git blob ids before and after (`ABSENT` for a file created or deleted)."""

    path: str
    pre: str
    post: str
    hunks: tuple[Hunk, ...]
    line: int


def blob_id(data: bytes | None) -> str:
    """Return the id that git gives to this content, `ABSENT` for None."""
    return ABSENT if data is None else hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def checked_path(raw: bytes) -> str:
    """Return a path below `vllm/` made of plain names. Raises ValueError for anything else."""
    if not _PATH.fullmatch(raw):
        raise ValueError(f"{raw[:200]!r} is not a plain path below vllm/")
    return raw.decode("ascii")


def patched(data: bytes | None, diff: FileDiff) -> bytes | None:
    """Return the file after the diff. Raises NotApplicable unless every line and both blob ids agree."""
    if blob_id(data) != diff.pre:
        raise NotApplicable(f"{diff.path} has blob {blob_id(data)[:7]}, expected {diff.pre[:7]}")
    lines = io.BytesIO(data or b"").readlines()
    out: list[bytes] = []
    done = 0
    for hunk in diff.hunks:
        end = hunk.old_at + len(hunk.old)
        out += lines[done : hunk.old_at]
        if hunk.old_at < done or len(out) != hunk.new_at or tuple(lines[hunk.old_at : end]) != hunk.old:
            raise NotApplicable(f"{diff.path}:{hunk.old_at + 1} does not match the diff; export the patch again")
        out += hunk.new
        done = end
    result = None if diff.post == ABSENT else b"".join(out + lines[done:])
    if blob_id(result) != diff.post:
        raise NotApplicable(f"{diff.path} would have blob {blob_id(result)[:7]}, but the diff expects {diff.post[:7]}")
    return result


def parse_diff(lines: list[bytes], where: str, start: int = 0) -> tuple[FileDiff, ...]:
    """Read the diff that begins at `lines[start]`. Raises DataError with `where:line`."""
    reader = _Reader(lines, where, start)
    diffs = []
    while not reader.at_end():
        diffs.append(reader.file_diff())
    if len({d.path for d in diffs}) != len(diffs):
        raise DataError(f"{where}: the patch changes the same file twice")
    return tuple(diffs)


class _Reader:
    """A cursor over the lines of a patch; errors name the last line read."""

    def __init__(self, lines: list[bytes], where: str, start: int) -> None:
        self.lines, self.where, self.at = lines, where, start

    def error(self, problem: str) -> DataError:
        return DataError(f"{self.where}:{self.at}: {problem}")

    def peek(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def next(self) -> bytes:
        line = self.peek()
        self.at += 1
        return line

    def at_end(self) -> bool:
        return not any(self.lines[self.at :])

    def file_diff(self) -> FileDiff:
        header = _HEADER.fullmatch(self.next())
        if not header:
            raise self.error("expected `diff --git a/PATH b/PATH`")
        try:
            path = checked_path(header[1])
        except ValueError as error:
            raise self.error(str(error)) from None
        if header[1] != header[2]:
            raise self.error("renames are not supported; export the patch again")
        line = self.at
        pre, post = self.extended_header()
        return FileDiff(path, pre, post, self.hunks(path.encode(), pre, post), line)

    def extended_header(self) -> tuple[str, str]:
        mode = self.next() if _MODE.fullmatch(self.peek()) else b""
        index = _INDEX.fullmatch(self.next())
        if not index:
            raise self.error(
                "expected `index PRE..POST` with full ids; renames, modes, links and binaries are not supported"
            )
        pre, post = index[1].decode(), index[2].decode()
        if (pre == ABSENT, post == ABSENT) != (mode.startswith(b"new"), mode.startswith(b"deleted")):
            raise self.error("the mode line and the blob ids disagree on whether the file is created or deleted")
        return pre, post

    def hunks(self, path: bytes, pre: str, post: str) -> tuple[Hunk, ...]:
        if {pre, post} == {ABSENT, blob_id(b"")}:
            return ()
        before = b"--- " + (b"/dev/null" if pre == ABSENT else b"a/" + path)
        after = b"+++ " + (b"/dev/null" if post == ABSENT else b"b/" + path)
        for expected in (before, after):
            if self.next() != expected:
                raise self.error(f"expected `{expected.decode()}`; only text edits are supported")
        hunks = [self.hunk()]
        while self.peek().startswith(b"@@"):
            hunks.append(self.hunk())
        return tuple(hunks)

    def hunk(self) -> Hunk:
        header = _HUNK.fullmatch(self.next())
        if not header:
            raise self.error("expected a hunk, `@@ -LINE,COUNT +LINE,COUNT @@`")
        old_line, old_count, new_line, new_count = (1 if n is None else int(n) for n in header.groups())
        old: list[bytes] = []
        new: list[bytes] = []
        while len(old) < old_count or len(new) < new_count:
            self.hunk_line(old, new)
        if (len(old), len(new)) != (old_count, new_count):
            raise self.error("the hunk has more lines than its header says")
        # An empty side names the line before it (0 at the top of the file).
        return Hunk(old_line - (old_count > 0), new_line - (new_count > 0), tuple(old), tuple(new))

    def hunk_line(self, old: list[bytes], new: list[bytes]) -> None:
        text = self.next()
        sides = {b" ": (old, new), b"-": (old,), b"+": (new,)}.get(text[:1])
        if sides is None:
            raise self.error("expected a hunk line that starts with a space, + or -; the hunk may be truncated")
        newline = b"" if self.peek().startswith(b"\\ ") else b"\n"
        if not newline:
            self.next()
        for side in sides:
            side.append(text[1:] + newline)
