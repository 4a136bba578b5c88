"""Write what a plan's cache folder holds into one archive. The same files give the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from .. import plain_file
from ..errors import ConfigError, HostError
from ..supervisor import kernel_cache
from ..validation import sentence
from . import relocate, stream
from .manifest import NAME, STARTS, PackedFile, PackKey, PackManifest
from .place import NINJA

_NOT_CARRIED = (".lock", ".log.lock", "flashinfer_jit.log")
_NOT_ENTERED = frozenset({"tmp", "lock", "locks", "__pycache__", "startup_plan"})
"""Scratch folders, and how much memory was free on the other host (VLLM_ENABLE_STARTUP_PLAN)."""


def contents(folder: Path) -> Iterator[str]:
    """Yield the path of each regular file that a pack takes along, sorted; locks and scratch files stay."""
    found = []
    for top in (*kernel_cache.VARIABLES.values(), STARTS):
        for parent, folders, files in os.walk(folder / top):
            folders[:] = [name for name in folders if name not in _NOT_ENTERED]
            inside = Path(parent).relative_to(folder)
            found += [
                str(inside / name)
                for name in files
                if not name.endswith(_NOT_CARRIED) and _is_regular(Path(parent, name))
            ]
    return iter(sorted(found))


def describe(folder: Path, provenance: Mapping[str, Any]) -> PackManifest:
    """
    Return the manifest of a cache folder; `provenance` is that of `provenance.replica`.

    Raise ConfigError where there is nothing to take along, or a file that a pack cannot hold.
    """
    files = []
    for path in contents(folder):
        try:
            with contextlib.suppress(FileNotFoundError):  # a compiler that works meanwhile removes its scratch files
                files.append(_file(folder, path))
        except OSError as error:
            raise HostError(f"{folder / path} cannot be read ({error.strerror}).") from None
    if not any(file.family != STARTS for file in files):
        raise ConfigError(f"{folder} holds no kernels; start the plan once, or run `dsv4 warm` with the same options.")
    machine = provenance["machine"]
    try:
        return PackManifest(
            key=PackKey.of(folder),
            versions=dict(provenance["versions"]),
            series=[f"{patch['name']} {patch['state']}" for patch in provenance["patches"].get("patches", [])],
            gpus=[gpu["name"] for gpu in machine["gpus"]],
            driver=machine.get("driver", ""),
            root=str(folder),
            plans=_plans(folder),
            files=files,
        )
    except ValidationError as error:
        raise ConfigError(f"{folder} cannot be packed: {sentence(error)}.") from None


def write(manifest: PackManifest, folder: Path, out: Path) -> str:
    """
    Write the archive and return its SHA-256.

    Raise ConfigError when `out` exists, HostError when it cannot be written, or a file changed since `describe`.
    """
    refusal = f"{out} exists and is not overwritten; remove it, or choose another file with --out."
    if out.exists():
        raise ConfigError(refusal)
    partial = None
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{out.name}.", dir=out.parent, delete=False) as file:
            partial = Path(file.name)
            _write(manifest, folder, file)
        partial.chmod(0o644)
        os.link(partial, out)  # unlike a rename, it never replaces a file
        with out.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileExistsError:
        raise ConfigError(refusal) from None
    except OSError as error:
        raise HostError(f"cannot write {out} ({error.strerror}); choose another file with --out.") from None
    finally:
        if partial:
            partial.unlink(missing_ok=True)


def _write(manifest: PackManifest, folder: Path, file: IO[bytes]) -> None:
    first = {packed.sha256: packed.path for packed in reversed(manifest.files)}
    with stream.compressor(file) as archive:
        data = manifest.to_bytes()
        archive.write(stream.header(NAME, len(data)) + data + stream.padding(len(data)))
        for digest, size in manifest.blobs().items():
            data = _read(folder, first[digest])
            if hashlib.sha256(data).hexdigest() != digest:
                raise HostError(f"{folder / first[digest]} changed meanwhile; export again when no start compiles.")
            archive.write(stream.header(digest, size))
            archive.write(data)
            archive.write(stream.padding(size))
        archive.write(stream.END)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _file(folder: Path, path: str) -> PackedFile:
    data = _read(folder, path)
    mtime = (folder / path).stat().st_mtime_ns if path.startswith(f"{NINJA}/") else None
    try:
        return PackedFile(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data), mtime=mtime)
    except ValidationError as error:
        raise ConfigError(f"{folder / path} cannot be packed: {sentence(error)}.") from None


def _read(folder: Path, path: str) -> bytes:
    with plain_file.open_regular(folder / path) as file:
        data = file.read()
    return relocate.packed(path, data) if relocate.moves(path) else data


def _plans(folder: Path) -> dict[str, float]:
    notes = {note.stem: kernel_cache.note(note) for note in sorted((folder / STARTS).glob("*.json"))}
    return {name: float(note["seconds"]) for name, note in notes.items() if note}
