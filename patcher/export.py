"""Write a series from the commits of a git clone of the unpacked tree: the same commits always give the same bytes."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from .errors import DataError, PatcherUsageError
from .series import Patch, included_lines, parse_patch

FORMAT_PATCH = [
    *("format-patch", "--quiet", "--numbered-files"),
    *("--zero-commit", "--full-index", "--no-signature", "--no-stat", "--keep-subject", "--no-renames"),
    *("--diff-algorithm=myers", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/"),
]
# A user's own settings (diff.noprefix, format.attach ...) must not reach the patches.
_PLAIN_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "LC_ALL": "C"}


def export(repository: Path, base: str, directory: Path) -> list[tuple[str, str]]:
    """
    Make the series in `directory` equal to the commits after `base`; return pairs of action and file name.

    Lines of `series` that stand for another series are kept. Raises PatcherUsageError when git fails, DataError for
    a commit that is not a plain text edit below vllm/ or has no unique slug; then nothing is written.
    """
    files = {_slug(patch): data for patch, data in _commits(repository, base)}
    series = "".join(f"{line}\n" for line in [*included_lines(directory), *files])
    files["series"] = series.encode()
    directory.mkdir(parents=True, exist_ok=True)
    done = []
    for name, data in files.items():
        file = directory / name
        if file.exists() and file.read_bytes() == data:
            done.append(("unchanged", name))
        else:
            file.write_bytes(data)
            done.append(("wrote", name))
    for old in sorted(directory.glob("*.patch")):
        if old.name not in files:
            old.unlink()
            done.append(("removed", old.name))
    return done


def _commits(repository: Path, base: str) -> list[tuple[Patch, bytes]]:
    _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    with tempfile.TemporaryDirectory() as folder:
        _git(repository, *FORMAT_PATCH, "--output-directory", folder, f"{base}..HEAD")
        mails = [file.read_bytes() for file in sorted(Path(folder).iterdir(), key=lambda file: int(file.name))]
    if not mails:
        raise PatcherUsageError(f"{repository} has no commit after {base}; commit the edit first, one commit per patch")
    patches = [parse_patch(Path(f"commit {n} after {base}"), data) for n, data in enumerate(mails, 1)]
    names = [_slug(patch) for patch in patches]
    if len(set(names)) != len(names):
        raise DataError(f"two commits after {base} have the same subject; change one, because it names the patch")
    return list(zip(patches, mails, strict=True))


def _slug(patch: Patch) -> str:
    words = re.findall(r"[a-z0-9]+", patch.subject.lower())
    if not words or "=?" in patch.subject:
        raise DataError(f"the subject {patch.subject!r} must be ASCII words, because it names the patch")
    return "-".join(words) + ".patch"


def _git(repository: Path, *arguments: str) -> None:
    command = ["git", "-C", str(repository), *arguments]
    try:
        run = subprocess.run(command, env=os.environ | _PLAIN_GIT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PatcherUsageError("export needs git, which is not on PATH") from None
    if run.returncode:
        reason = run.stderr.strip().splitlines() or [f"no such revision {arguments[-1]}"]
        raise PatcherUsageError(f"git {arguments[0]} in {repository}: {reason[-1]}")
