"""
What a series and this product would meet in another version of vLLM. Nothing is written, nothing imported.

Each patch is tried on the other tree in order, at any line and with no fuzz. Then every name of vLLM that added lines
and this product's own files use is looked up in both trees (`names.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .diff import FileDiff, Hunk, blob_id, patched
from .errors import TreeError
from .hunks import Trial, attempt
from .series import Patch, Series
from .symbols import parse
from .tree import Tree

Files = dict[str, bytes | None]
Verdict = Literal["applies", "conflict", "upstream"]


@dataclass(frozen=True)
class PortedPatch:
    """How one patch meets the other tree; `details` say where, `exact` that its files are the same to the byte."""

    patch: Patch
    verdict: Verdict
    details: tuple[str, ...] = ()
    exact: bool = False


def before_and_after(tree: Tree, series: Series) -> tuple[Files, Files]:
    """Return the series' files without and with it, whether or not it is applied. Raises TreeError."""
    before: Files = {}
    after: Files = {}
    for path, chain in series.chains.items():
        data = tree.read(path)
        ids = [chain[0].pre, *(diff.post for diff in chain)]
        if blob_id(data) not in ids:
            raise TreeError(f"{tree.root / path} is not the file that series {series.name} was made for; set --base")
        at = ids.index(blob_id(data))
        before[path] = after[path] = data
        for diff in reversed(chain[:at]):
            before[path] = patched(before[path], _reverse(diff))
        for diff in chain[at:]:
            after[path] = patched(after[path], diff)
    return before, after


def try_patches(series: Series, before: Files, target: Tree) -> Iterator[PortedPatch]:
    """Yield the outcome of each patch; one that does not apply is left out for those after it."""
    here, there = dict(before), {path: target.read(path) for path in series.chains}
    for patch in series.patches:
        trials = {diff.path: attempt(there[diff.path], diff) for diff in patch.diffs}
        exact = all(blob_id(there[diff.path]) == diff.pre for diff in patch.diffs)
        for diff in patch.diffs:
            here[diff.path] = patched(here[diff.path], diff)
        problems = [problem for trial in trials.values() for problem in trial.problems]
        for diff in patch.diffs:
            if not problems and diff.path.endswith(".py"):
                problems += _misplaced(diff, here[diff.path], trials[diff.path])
        if all(trial.upstream for trial in trials.values()):
            yield PortedPatch(patch, "upstream", ("every change is there; drop the patch",))
        elif problems:
            yield PortedPatch(patch, "conflict", tuple(problems))
        else:
            there |= {path: trial.result for path, trial in trials.items()}
            yield PortedPatch(patch, "applies", exact=exact)


def _misplaced(diff: FileDiff, here: bytes | None, trial: Trial) -> Iterator[str]:
    """Yield hunks that would stand in another function, and a result that does not compile."""
    if trial.upstream or not trial.result or here is None:
        return
    mine, other = parse("", diff.path, here), parse("", diff.path, trial.result)
    if other is None:
        yield f"{diff.path} would not compile"
        return
    for number, (hunk, place) in enumerate(zip(diff.hunks, trial.places, strict=True), 1):
        offset = _first_change(hunk)
        was = mine.scope(hunk.new_at + offset + 1)[0] if mine else ""
        would = other.scope(place + offset + 1)[0]
        if was != would:
            yield f"{diff.path}: hunk {number} would stand in {would or 'the module'}, made for {was or 'the module'}"


def _first_change(hunk: Hunk) -> int:
    pairs = zip(hunk.old, hunk.new, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(hunk.old), max(len(hunk.new) - 1, 0)))


def _reverse(diff: FileDiff) -> FileDiff:
    hunks = tuple(Hunk(h.new_at, h.old_at, h.new, h.old) for h in diff.hunks)
    return FileDiff(diff.path, diff.post, diff.pre, hunks, diff.line)
