"""Put the files of a pack into a cache folder. Nothing that is there already is touched."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..errors import ConfigError, HostError
from . import relocate
from .manifest import LARGEST_MIB, NAME, PackedFile, PackManifest, parse
from .stream import PackReader

NINJA = "flashinfer"
"""The folder whose builds ninja judges by the times of files, and by absolute paths."""
RECORDS = "packs"
"""The folder in a cache folder that keeps the manifest of each imported pack."""
_SPARE = 64 << 20  # bytes that have to stay free on the disk
_STAGING = ".import-"


@dataclass
class Placed:
    """What an import did."""

    manifest: PackManifest
    folder: Path
    written: list[PackedFile] = field(default_factory=list)
    kept: list[PackedFile] = field(default_factory=list)
    """Files that were there already, and stay as they are."""
    before: bool = False
    """Whether this pack was imported before and its files are there; then nothing was read but its manifest."""


def read_manifest(file: IO[bytes], name: str) -> tuple[PackManifest, PackReader]:
    """Return the manifest of an archive, and the reader, which is at the first file."""
    reader = PackReader(file, name)
    first, size = reader.member()
    if first != NAME:
        raise reader.refused(f"its first member is not {NAME}")
    if size > LARGEST_MIB << 20:
        raise reader.refused(f"its manifest is larger than {LARGEST_MIB} MiB")
    return parse(b"".join(reader.content(size)), name), reader


def blobs_into(folder: Path | None, manifest: PackManifest, reader: PackReader) -> None:
    """
    Read all files of an archive, each into `folder` under its hash, and check hashes and the end of the archive.

    Raise ConfigError for an archive that holds anything else than its manifest says.
    """
    for digest, size in manifest.blobs().items():
        if reader.member() != (digest, size):
            raise reader.refused("its files are not those of its manifest, in that order")
        found = hashlib.sha256()
        with (folder / digest).open("xb") if folder else contextlib.nullcontext() as file:
            for part in reader.content(size):
                found.update(part)
                if file:
                    file.write(part)
        if found.hexdigest() != digest:
            raise reader.refused(f"a file does not have its hash, {digest[:12]}…")
    if reader.member() != ("", 0):
        raise reader.refused("it holds more files than its manifest says")


def place(file: IO[bytes], name: str, root: Path, folder: Path) -> Placed:
    """
    Import an archive into `folder`, the cache folder of a plan below `root`.

    Every hash is checked before the first file goes there. Raise ConfigError for a pack of another key or a malformed
    one, HostError where the folder cannot be written.
    """
    manifest, reader = read_manifest(file, name)
    if manifest.key.folder(root) != folder:
        key = "/".join(folder.parts[-3:])
        raise ConfigError(f"{name} is for {manifest.key}, and this plan needs {key}: nothing was changed.")
    record = folder / RECORDS / f"{hashlib.sha256(manifest.to_bytes()).hexdigest()[:16]}.json"
    if record.exists() and all(os.path.lexists(folder / packed.path) for packed in manifest.files):
        return Placed(manifest, folder, kept=list(manifest.files), before=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_room(folder, manifest)
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=root) as staging:
            blobs_into(Path(staging), manifest, reader)
            placed = Placed(manifest, folder)
            for packed in manifest.files:
                (placed.written if _put(packed, Path(staging), folder) else placed.kept).append(packed)
            _keep_record(record, manifest, Path(staging))
    except OSError as error:
        where = error.filename or folder
        raise HostError(f"cannot write {where} ({error.strerror}).") from None
    return placed


def _put(packed: PackedFile, staging: Path, folder: Path) -> bool:
    """Write one file into the cache; tell whether it was missing there."""
    target = folder / packed.path
    _folders(folder, target.parent)
    if os.path.lexists(target):
        return False
    fresh, content = staging / "fresh", staging / packed.sha256
    if relocate.moves(packed.path) and packed.size <= relocate.LARGEST:
        fresh.write_bytes(relocate.placed(packed.path, content.read_bytes(), folder))
    else:
        shutil.copyfile(content, fresh)
    fresh.chmod(0o644)
    if packed.mtime is not None:
        os.utime(fresh, ns=(packed.mtime, packed.mtime))
    try:
        os.link(fresh, target)  # complete or not at all, and never in place of another file
    except FileExistsError:
        return False
    finally:
        fresh.unlink()
    return True


def _folders(top: Path, folder: Path) -> None:
    """Make the folders down to `folder`; raise HostError if one of them is a link, which may lead elsewhere."""
    path = top
    for part in folder.relative_to(top).parts:
        path /= part
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        if path.is_symlink() or not path.is_dir():
            raise HostError(f"{path} is not a folder; nothing is written through it.")


def _keep_record(record: Path, manifest: PackManifest, staging: Path) -> None:
    _folders(record.parents[1], record.parent)
    fresh = staging / record.name
    fresh.write_bytes(manifest.to_bytes())
    fresh.replace(record)


def _require_room(folder: Path, manifest: PackManifest) -> None:
    needed = manifest.size + sum(manifest.blobs().values()) + _SPARE
    if needed > (free := shutil.disk_usage(folder).free):
        raise HostError(f"{folder} has {free / 1e9:.1f} GB free, and the import takes {needed / 1e9:.1f} GB.")
