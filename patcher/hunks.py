"""Where the hunks of a diff would stand in another version of a file: at any line, but with no fuzz. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .diff import ABSENT, FileDiff, Hunk, blob_id


@dataclass(frozen=True)
class Trial:
    """
    One diff tried on another file.

    `result` is the file after it, None where a hunk has no place. `places` are the indices at which the hunks' new
    lines begin in `result`. `upstream` says that every change is there already.
    """

    result: bytes | None
    places: tuple[int, ...] = ()
    upstream: bool = False
    problems: tuple[str, ...] = ()


def attempt(data: bytes | None, diff: FileDiff) -> Trial:
    """Try a diff on the content of another file, None when there is no such file."""
    if ABSENT in (diff.pre, diff.post):
        return _whole_file(data, diff)
    if data is None:
        return Trial(None, problems=(f"{diff.path} is gone",))
    lines = data.splitlines(keepends=True)
    out: list[bytes] = []
    places, problems, there = [], [], 0
    done = moved = 0
    for number, hunk in enumerate(diff.hunks, 1):
        at = _place(lines, hunk.old, done, hunk.old_at + moved)
        if at is None:
            upstream = _place(lines, hunk.new, done, hunk.old_at + moved)
            there += upstream is not None
            known = "is there already" if upstream is not None else _nearest(lines, hunk, done)
            problems.append(f"{diff.path}: hunk {number} of {len(diff.hunks)} {known}")
            continue
        out += lines[done:at]
        places.append(len(out))
        out += hunk.new
        done, moved = at + len(hunk.old), at - hunk.old_at
    if there == len(diff.hunks):
        return Trial(data, upstream=True)
    return Trial(None if problems else b"".join(out + lines[done:]), tuple(places), problems=tuple(problems))


def _whole_file(data: bytes | None, diff: FileDiff) -> Trial:
    """Try the creation or the deletion of a file."""
    if blob_id(data) == diff.post:
        return Trial(data, upstream=True)
    if blob_id(data) != diff.pre:
        kind = "exists, with other content" if diff.pre == ABSENT else "has changed, and the patch deletes it"
        return Trial(None, problems=(f"{diff.path} {kind}",))
    if diff.post == ABSENT:
        return Trial(b"")
    return Trial(b"".join(line for hunk in diff.hunks for line in hunk.new), (0,) * len(diff.hunks))


def _place(lines: list[bytes], block: tuple[bytes, ...], start: int, expected: int) -> int | None:
    """Return the index at which a block stands behind `start`: the expected one, or the only one."""
    size = len(block)
    if expected >= start and tuple(lines[expected : expected + size]) == block:
        return expected
    found = [i for i in range(start, len(lines) - size + 1) if tuple(lines[i : i + size]) == block]
    return found[0] if len(found) == 1 else None


def _nearest(lines: list[bytes], hunk: Hunk, start: int) -> str:
    """Say where most lines of a hunk stand, and the first that differs."""
    size = len(hunk.old)

    def same(at: int) -> int:
        return sum(a == b for a, b in zip(hunk.old, lines[at : at + size], strict=False))

    best = max(range(start, max(len(lines) - size, start) + 1), key=same)
    if same(best) == size:
        return "fits in several places"
    if same(best) * 2 < size:
        return f"has no place; it was at line {hunk.old_at + 1}"
    pairs = zip(hunk.old, lines[best : best + size], strict=False)
    offset, expected, found = next((n, a, b) for n, (a, b) in enumerate(pairs) if a != b)
    return f"differs at line {best + offset + 1}: `{_text(found)}` was `{_text(expected)}`"


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace").strip()[:70]
