"""
Read a git diff and apply it to bytes, exactly or not at all.

The grammar is the part of git's that `git format-patch --full-index --no-renames` writes for text files. All else
(renames, mode changes, binary hunks, symbolic links, paths outside `vllm/`) is refused with its file and line. Context
and line numbers must match to the byte, and the result must have the blob id that the diff names. Pure.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass

from .errors import DataError, NotApplicable

ABSENT = "0" * 40  # what git writes for a file that is not there
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
    return ABSENT if data is None else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def checked_path(raw: bytes) -> str:
    """Return a path below `vllm/` made of plain names. Raises ValueError for anything else."""
    if not _PATH.fullmatch(raw):
        raise ValueError(f"{raw[:200]!r} is not a plain path below vllm/")
    return raw.decode("ascii")


def patched(data: bytes | None, diff: FileDiff) -> bytes | None:
    """Return the file after the diff. Raises NotApplicable unless every line and both blob ids agree."""
    if blob_id(data) != diff.pre:
        raise NotApplicable(f"{diff.path} is {blob_id(data)[:7]}, expected {diff.pre[:7]}")
    lines = io.BytesIO(data or b"").readlines()
    out: list[bytes] = []
    done = 0
    for hunk in diff.hunks:
        end = hunk.old_at + len(hunk.old)
        out += lines[done : hunk.old_at]
        if hunk.old_at < done or len(out) != hunk.new_at or tuple(lines[hunk.old_at : end]) != hunk.old:
            raise NotApplicable(f"{diff.path}:{hunk.old_at + 1} does not read as the diff says; export the patch again")
        out += hunk.new
        done = end
    result = None if diff.post == ABSENT else b"".join(out + lines[done:])
    if blob_id(result) != diff.post:
        raise NotApplicable(f"{diff.path} would become {blob_id(result)[:7]}, the diff says {diff.post[:7]}")
    return result


def parse_diff(lines: list[bytes], where: str, start: int = 0) -> tuple[FileDiff, ...]:
    """Read the diff that begins at `lines[start]`. Raises DataError with `where:line`."""
    reader = _Reader(lines, where, start)
    diffs = []
    while not reader.at_end():
        diffs.append(reader.file_diff())
    if len({d.path for d in diffs}) != len(diffs):
        raise DataError(f"{where}: changes the same file twice")
    return tuple(diffs)


class _Reader:
    """A cursor over the lines of a patch."""

    def __init__(self, lines: list[bytes], where: str, start: int) -> None:
        self.lines, self.where, self.at = lines, where, start

    def error(self, problem: str, line: int | None = None) -> DataError:
        return DataError(f"{self.where}:{(self.at if line is None else line) + 1}: {problem}")

    def peek(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def next(self) -> bytes:
        self.at += 1
        return self.lines[self.at - 1] if self.at <= len(self.lines) else b""

    def at_end(self) -> bool:
        return not any(self.lines[self.at :])

    def file_diff(self) -> FileDiff:
        line = self.at
        header = _HEADER.fullmatch(self.next())
        if not header:
            raise self.error("expected `diff --git a/PATH b/PATH`", line)
        try:
            path = checked_path(header[1])
        except ValueError as error:
            raise self.error(str(error), line) from None
        if header[1] != header[2]:
            raise self.error("renames are not applied; export with --no-renames", line)
        pre, post = self.extended_header()
        hunks = self.hunks(path.encode(), pre, post)
        return FileDiff(path, pre, post, hunks, line + 1)

    def extended_header(self) -> tuple[str, str]:
        mode = self.next() if _MODE.fullmatch(self.peek()) else b""
        index = _INDEX.fullmatch(self.next())
        if not index:
            raise self.error(
                "expected an edit of a regular text file with a full `index PRE..POST`; renames, mode changes, links "
                "and binary hunks are not applied",
                self.at - 1,
            )
        pre, post = index[1].decode(), index[2].decode()
        if (pre == ABSENT, post == ABSENT) != (mode.startswith(b"new"), mode.startswith(b"deleted")):
            raise self.error(
                "the file mode line and the blob ids disagree about a created or deleted file", self.at - 1
            )
        return pre, post

    def hunks(self, path: bytes, pre: str, post: str) -> tuple[Hunk, ...]:
        if {pre, post} == {ABSENT, blob_id(b"")}:
            return ()
        before = b"--- " + (b"/dev/null" if pre == ABSENT else b"a/" + path)
        after = b"+++ " + (b"/dev/null" if post == ABSENT else b"b/" + path)
        for expected in (before, after):
            if self.next() != expected:
                raise self.error(f"expected `{expected.decode()}`", self.at - 1)
        hunks = [self.hunk()]
        while self.peek().startswith(b"@@"):
            hunks.append(self.hunk())
        return tuple(hunks)

    def hunk(self) -> Hunk:
        line = self.at
        header = _HUNK.fullmatch(self.next())
        if not header:
            raise self.error("expected a hunk, `@@ -LINE,COUNT +LINE,COUNT @@`", line)
        old_line, old_count, new_line, new_count = (1 if n is None else int(n) for n in header.groups())
        old: list[bytes] = []
        new: list[bytes] = []
        while len(old) < old_count or len(new) < new_count:
            self.hunk_line(old, new)
        if (len(old), len(new)) != (old_count, new_count):
            raise self.error("the hunk has more lines than its header says", line)
        # An empty side names the line before it (0 at the top of the file).
        return Hunk(old_line - (old_count > 0), new_line - (new_count > 0), tuple(old), tuple(new))

    def hunk_line(self, old: list[bytes], new: list[bytes]) -> None:
        text = self.next()
        tag = text[:1]
        sides = [side for side, tags in ((old, b" -"), (new, b" +")) if tag and tag in tags]
        if not sides:
            raise self.error(
                "a hunk line starts with a space, + or -; this one does not, or the hunk is cut short", self.at - 1
            )
        newline = b"" if self.peek().startswith(b"\\ ") else b"\n"
        if not newline:
            self.next()
        for side in sides:
            side.append(text[1:] + newline)
