"""Rules for a series that need no tree; each finding reads `file:line: what, and what to do`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .errors import DataError
from .series import Patch, discontinuities, listed, read_patch


def lint(directory: Path) -> tuple[list[str], list[str]]:
    """Return (findings, notes) for one series; a note names a rule that could not be checked here."""
    try:
        paths = listed(directory)
    except DataError as error:
        return [str(error)], []
    unlisted = sorted(set(directory.iterdir()) - {directory / "series", *paths})
    findings = [f"{file}:1: this file is not listed in `series`; add it there or delete it" for file in unlisted]
    patches = []
    for path in paths:
        try:
            patches.append(read_patch(path))
        except DataError as error:
            findings.append(str(error))
    findings += discontinuities(tuple(patches))
    findings += [finding for patch in patches for finding in _obsolete(patch)]
    repository = directory.resolve().parents[2]
    if not (repository / "tests").is_dir():
        return findings, [f"self-tests not checked: there is no {repository / 'tests'}"]
    return findings + [finding for patch in patches for finding in _untested(patch, repository)], []


def _obsolete(patch: Patch) -> Iterator[str]:
    drop = patch.trailers["Drop-When"]
    if drop.groups[0] and _numbers(patch.applies_to[1]) >= _numbers(drop.groups[0]):
        yield f"{patch.path}:{drop.line}: Drop-When is true for vLLM {patch.applies_to[1]}; drop the patch"


def _untested(patch: Patch, repository: Path) -> Iterator[str]:
    test = patch.trailers["Self-Test"]
    if not (repository / test.value).is_file():
        yield f"{patch.path}:{test.line}: Self-Test names {test.value}, which does not exist"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.sub(r"(\.0)+$", "", version).split("."))
