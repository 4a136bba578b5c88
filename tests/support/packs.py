"""Kernel packs and caches for tests: a small cache as compilers leave it, and archives made by hand."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint.kernel_packs import export, place, stream
from dsv4_serve.entrypoint.kernel_packs.manifest import PackManifest

KEY = {"build": "0.32.0-0a1b2c3d", "hardware": "h200", "model": "w4a16"}
MACHINE = {"gpus": [{"name": "NVIDIA H200", "memory_mib": 143771}], "driver": "580.159.04", "cpu": "x", "cores": 2}
PROVENANCE: dict[str, Any] = {
    "versions": {"vllm": "0.32.0", "torch": "2.13.0"},
    "patches": {"patches": [{"name": "list-draft-tensors", "sha256": "aa", "state": "applied"}]},
    "machine": MACHINE,
}
FILES = {
    "triton/ABC/kernel.cubin": b"\x7fELF triton",
    "triton/ABC/kernel.ptx": b"ptx",
    "tilelang/0.1.12/cuda-binaries/aa.cubin": b"\x7fELF tilelang",
    "vllm/deep_gemm/cache/kernel.gemm.0dbd/kernel.cubin": b"\x7fELF triton",  # the same bytes as Triton's
    "vllm/deep_gemm/cache/kernel.gemm.0dbd/.committed": b"",
    "flashinfer/.cache/flashinfer/0.7.0/90a/cached_ops/sampling/sampling.so": b"\x7fELF sampling",
    "cuda/3/3/9cfe19dcb4ca29": b"driver",
}
STARTED = {"seconds": 589.0, "date": "2026-11-28", "phases": {"starting": 109.0}}


def folder_of(root: Path) -> Path:
    return root.joinpath(*KEY.values())


def cache(root: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write a cache below `root`, with a group of Triton's and one plan's note, and return its folder."""
    folder = folder_of(root)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    names = ("kernel.cubin", "kernel.ptx")
    group = {"child_paths": {name: f"{folder}/triton/ABC/{name}" for name in names}}
    (folder / "triton/ABC/__grp__kernel.json").write_text(json.dumps(group))
    (folder / "starts").mkdir(exist_ok=True)
    (folder / "starts/0123456789abcdef.json").write_text(json.dumps(STARTED))
    return folder


def packed(folder: Path, out: Path) -> tuple[PackManifest, str]:
    """Pack a cache folder, and return the manifest and the digest."""
    manifest = export.describe(folder, PROVENANCE)
    return manifest, export.write(manifest, folder, out)


def manifest_of(files: Sequence[Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    """A manifest as plain data, valid where `files` are."""
    data = {"format": 1, "key": KEY, "versions": {}, "series": [], "gpus": [], "root": "/c", "plans": {}}
    return {**data, "files": list(files), **changes}


def file_of(path: str, data: bytes = b"", **changes: Any) -> dict[str, Any]:
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), **changes}


def archive(manifest: object, members: Sequence[tuple[bytes, bytes]], end: bytes = stream.END) -> bytes:
    """An xz archive of a manifest and of members, each a header and its content."""
    data = json.dumps(manifest).encode()
    raw = io.BytesIO()
    for header, content in [(stream.header("manifest.json", len(data)), data), *members]:
        raw.write(header + content + stream.padding(len(content)))
    return lzma.compress(raw.getvalue() + end, preset=0)


def member(data: bytes, name: str = "", size: int | None = None) -> tuple[bytes, bytes]:
    return stream.header(name or hashlib.sha256(data).hexdigest(), len(data) if size is None else size), data


def imported(data: bytes, root: Path) -> place.Placed:
    """Import archive bytes into the cache of the usual key below `root`."""
    return place.place(io.BytesIO(data), "test.tar.xz", root, folder_of(root))


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of files, None for folders."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}
