"""
Exchange the files of a tree, all or none.

Every new file is computed in memory first. Then, under a lock, with Ctrl-C and SIGTERM blocked:

1. A journal, `vllm/.dsv4-patch`, is written in the phase `stage`: each file with its blob ids before and after.
2. Each new file is written and synced next to its target, hidden. If killed before step 3, the tree is unchanged.
3. The journal is replaced by one in the phase `commit`. From here on the tree counts as new.
4. Each staged file is renamed over its target; the journal is removed.

The next `apply` begins with `recover`: it undoes the phase `stage` and finishes the phase `commit`; the other commands
reject a tree with a journal. If a write or a rename fails, the old bytes are restored at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .diff import ABSENT, blob_id, checked_path, patched
from .errors import NotApplicable, TreeError
from .series import Series
from .tree import JOURNAL, STAGED, Tree, states

Files = list[tuple[str, str, str]]  # path, blob id before, blob id after


@dataclass(frozen=True)
class Change:
    """One file's bytes before and after (None: no file), and its permission bits."""

    path: str
    old: bytes | None
    new: bytes | None
    mode: int


def plan(tree: Tree, series: Series) -> list[Change]:
    """Compute every pending change in memory, writing nothing. Raises NotApplicable or TreeError."""
    drifted = [f"{s.patch.name}: {s.detail}" for s in states(tree, series) if s.verdict == "drifted"]
    if drifted:
        raise NotApplicable("; ".join(drifted) + ". Nothing was written.")
    changes = []
    for path, chain in series.chains.items():
        old = new = tree.read(path)
        ids = [chain[0].pre, *(diff.post for diff in chain)]
        for diff in chain[ids.index(blob_id(old)) :]:
            new = patched(new, diff)
        if new != old:
            mode = 0o644 if old is None else (tree.root / path).stat().st_mode & 0o777
            changes.append(Change(path, old, new, mode))
            folder = next(p for p in (tree.root / path).parents if p.is_dir())
            if not os.access(folder, os.W_OK | os.X_OK):
                raise TreeError(f"{folder} is not writable for this user, or is mounted read-only; nothing was written")
    return changes


@contextmanager
def locked(tree: Tree) -> Iterator[None]:
    """Lock out other `apply` runs and block signals; the kernel ends both with the process. Raises TreeError."""
    folder = os.open(tree.root / "vllm", os.O_RDONLY | os.O_DIRECTORY)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TreeError(f"another `dsv4 patch apply` is running in {tree.root}; wait for it to end") from None
    finally:
        os.close(folder)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def exchange(tree: Tree, changes: Sequence[Change]) -> None:
    """Write all changes, or none and raise TreeError. The caller holds the lock and has recovered the tree."""
    if not changes:
        return
    files = [(c.path, blob_id(c.old), blob_id(c.new)) for c in changes]
    try:
        _record(tree, "stage", files)
        for change in changes:
            if change.new is not None:
                (tree.root / change.path).parent.mkdir(parents=True, exist_ok=True)
                _write(_staged(tree.root / change.path), change.new, change.mode)
        _sync(tree, files)
        _record(tree, "commit", files)
        _roll_forward(tree, files)
    except OSError as error:
        _put_back(tree, changes, files)
        where = error.filename or tree.root
        raise TreeError(f"cannot write {where}: {error.strerror}. The tree is unchanged.") from None


def recover(tree: Tree) -> Literal["undone", "finished"] | None:
    """Undo or finish an interrupted exchange, if there is one. Raises TreeError when its files changed since."""
    file = tree.root / JOURNAL
    phase, files = _read_journal(file) if file.exists() else ("", [])
    if phase == "commit":
        _require_untouched(tree, files)
        _roll_forward(tree, files)
        return "finished"
    _unstage(tree, files)
    return "undone" if phase else None


def _roll_forward(tree: Tree, files: Files) -> None:
    for path, _, post in files:
        target = tree.root / path
        if post == ABSENT:
            _remove(target)
        elif _staged(target).exists():
            _staged(target).replace(target)
    _sync(tree, files)
    (tree.root / JOURNAL).unlink()


def _unstage(tree: Tree, files: Files) -> None:
    for path, pre, _ in files:
        target = tree.root / path
        _remove(_staged(target))
        for folder in Path(path).parents if pre == ABSENT else ():
            with suppress(OSError):
                (tree.root / folder).rmdir()  # fails for a folder that is not empty
    _remove(_staged(tree.root / JOURNAL))
    _remove(tree.root / JOURNAL)


def _put_back(tree: Tree, changes: Sequence[Change], files: Files) -> None:
    for change in changes:
        target = tree.root / change.path
        if tree.read(change.path) == change.old:
            continue
        if change.old is None:
            target.unlink()
        else:
            _write(_staged(target), change.old, change.mode)
            _staged(target).replace(target)
    _unstage(tree, files)


def _record(tree: Tree, phase: str, files: Files) -> None:
    file = tree.root / JOURNAL
    _write(_staged(file), json.dumps({"phase": phase, "files": files}).encode(), 0o644)
    _staged(file).replace(file)
    _sync(tree, [(JOURNAL, "", "")])


def _read_journal(file: Path) -> tuple[str, Files]:
    try:
        journal = json.loads(file.read_bytes() if file.is_file() else b"")  # a pipe would be waited for
        return journal["phase"], [(checked_path(path.encode()), pre, post) for path, pre, post in journal["files"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TreeError(f"{file} is not a journal of this patcher; reinstall vLLM, then remove this file") from None


def _require_untouched(tree: Tree, files: Files) -> None:
    for path, pre, post in files:
        current = blob_id(tree.read(path))
        staged = _staged(tree.root / path)
        ready = post == ABSENT or (staged.exists() and blob_id(staged.read_bytes()) == post)
        if current != post and not (current == pre and ready):
            raise TreeError(
                f"{path} changed after an interrupted apply, which can therefore not be finished; "
                f"reinstall vLLM, then remove {tree.root / JOURNAL}"
            )


def _write(file: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as out:
        os.fchmod(out.fileno(), mode)
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _staged(target: Path) -> Path:
    return target.with_name(f".{target.name}{STAGED}")


def _remove(file: Path) -> None:
    if os.path.lexists(file):
        file.unlink()


def _sync(tree: Tree, files: Iterable[tuple[str, str, str]]) -> None:
    for folder in {(tree.root / path).parent for path, _, _ in files}:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
