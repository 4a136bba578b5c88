"""What the cache of this host holds: list it, verify what was imported, find what other builds left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import plain_file
from ..errors import HostError
from ..supervisor.kernel_cache import VARIABLES
from . import relocate
from .manifest import LARGEST_MIB, STARTS, PackedFile, PackManifest, parse
from .place import NINJA, RECORDS

_LEFT = ".import-*"
_CHUNK = 1 << 20
_RUNNING = 1 / 24
"""Days without a write after which an import is taken for broken."""


@dataclass(frozen=True)
class CachedKernels:
    """The kernels of one build, kind of GPU and model."""

    folder: Path
    key: str
    files: int
    size: int
    plans: int
    """Plans that became ready with them."""
    packs: int
    current: bool
    """Whether they are of the installed build. Others may be in use too, by a vLLM elsewhere on this host."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        counts = {"files": self.files, "bytes": self.size, "plans": self.plans, "packs": self.packs}
        return {"key": self.key, "folder": str(self.folder), **counts, "current": self.current}


def listed(root: Path, build: str) -> list[CachedKernels]:
    """Return what is below a cache's root; `build` is the installed one."""
    return [_cached(folder, build) for folder in sorted(_folders(root))]


@dataclass
class VerifiedCache:
    """What became of the files of all imported packs."""

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every file is as its pack had it."""
        return not (self.missing or self.changed)


def verify(root: Path) -> VerifiedCache:
    """Hash every file that a pack brought; what ninja and later starts write to is only looked for."""
    result = VerifiedCache()
    for folder in sorted(_folders(root)):
        for manifest in _imported(folder):
            for packed in manifest.files:
                result.checked += 1
                name = f"{manifest.key}/{packed.path}"
                if not (state := _state(folder, packed)):
                    continue
                (result.missing if state == "missing" else result.changed).append(name)
    return result


@dataclass(frozen=True)
class Prunable:
    """A folder of a build other than the installed one, or of a broken import."""

    folder: Path
    size: int
    days: float
    """Since a start or an import last wrote to it."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"folder": str(self.folder), "bytes": self.size, "days": round(self.days, 1)}


def prunable(root: Path, build: str, days: float) -> list[Prunable]:
    """Return the folders of other builds that nothing was written to for `days`, and what broken imports left."""
    builds = {folder.parents[1] for folder in _folders(root)} - {root / build}
    left = [_prunable(folder) for folder in root.glob(_LEFT) if not folder.is_symlink()]
    found = [*map(_prunable, builds), *(one for one in left if one.days >= _RUNNING)]
    return sorted((one for one in found if one.days >= days), key=lambda one: one.folder)


def remove(found: list[Prunable]) -> None:
    """Remove folders; raise HostError where that fails."""
    for one in found:
        try:
            shutil.rmtree(one.folder)
        except OSError as error:
            raise HostError(f"cannot remove {error.filename or one.folder} ({error.strerror or error}).") from None


def _folders(root: Path) -> Iterator[Path]:
    """Yield each folder BUILD/HARDWARE/MODEL that has a compiler's folder or a note in it."""
    for folder in root.glob("*/*/*"):
        linked = any(one.is_symlink() for one in (folder, *folder.parents[:2]))
        if not linked and any((folder / name).is_dir() for name in (*VARIABLES.values(), STARTS)):
            yield folder


def _cached(folder: Path, build: str) -> CachedKernels:
    sizes = [file.st_size for name in VARIABLES.values() for file in _files(folder / name)]
    plans, packs = len(list((folder / STARTS).glob("*.json"))), len(list((folder / RECORDS).glob("*.json")))
    key = "/".join(folder.parts[-3:])
    return CachedKernels(folder, key, len(sizes), sum(sizes), plans, packs, folder.parts[-3] == build)


def _prunable(folder: Path) -> Prunable:
    stats = list(_files(folder))
    newest = max((one.st_mtime for one in stats), default=folder.stat().st_mtime)
    return Prunable(folder, sum(one.st_size for one in stats), (time.time() - newest) / 86400)


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Yield what is known of each regular file; compilers that work meanwhile remove files and folders."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = Path(parent, name).lstat()
                if stat.S_ISREG(status.st_mode):
                    yield status


def _imported(folder: Path) -> Iterator[PackManifest]:
    for record in sorted((folder / RECORDS).glob("*.json")):
        try:
            yield parse(plain_file.read(record, LARGEST_MIB), str(record))
        except OSError as error:
            raise HostError(f"{record} cannot be read ({error.strerror}).") from None


def _state(folder: Path, packed: PackedFile) -> str:
    """Return what is wrong with an imported file; an empty string where nothing is."""
    try:
        with plain_file.open_regular(folder / packed.path) as file:
            if packed.path.startswith((f"{NINJA}/", f"{STARTS}/")):
                return ""
            if relocate.moves(packed.path) and packed.size <= relocate.LARGEST:
                found = hashlib.sha256(relocate.packed(packed.path, file.read(2 * relocate.LARGEST)))
            else:
                found = hashlib.sha256()
                while part := file.read(_CHUNK):
                    found.update(part)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "changed"
    return "" if found.hexdigest() == packed.sha256 else "changed"
