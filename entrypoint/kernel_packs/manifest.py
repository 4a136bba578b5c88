"""
The manifest of a kernel pack: for which code, GPU and model it is, and every file by path, hash and size.

An archive is hostile input. Its members are named by hash alone; paths stand only here, and are checked here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .. import plain_file
from ..errors import ConfigError
from ..supervisor.kernel_cache import VARIABLES
from ..validation import sentence, text_like

NAME = "manifest.json"
LARGEST_MIB = 64
"""Of a manifest. One of an H200 host with 8,573 files has 1.4 MB (2026-11-29)."""
MOST_FILES = 200_000
STARTS = "starts"
"""The folder of the notes that plans leave; the others are the compilers'."""
_TOP = frozenset({*VARIABLES.values(), STARTS})
_PART = re.compile(r"[ -.0-\[\]-~]{1,255}")  # printable ASCII but for slash and backslash
_FOLDER = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,99}")

Digest = Annotated[str, text_like("[0-9a-f]{64}", "not a SHA-256 in lower-case hexadecimal digits")]
Text = Annotated[str, Field(max_length=300)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class PackKey(_Strict):
    """What a kernel depends on: the code that compiled it, the kind of GPU, the model."""

    build: str
    hardware: str
    model: str

    @field_validator("build", "hardware", "model")
    @classmethod
    def _is_folder(cls, name: str) -> str:
        if not _FOLDER.fullmatch(name):
            raise ValueError("not the name of a folder")
        return name

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the key of a plan's cache folder, which ends in BUILD/HARDWARE/MODEL."""
        build, hardware, model = folder.parts[-3:]
        return cls(build=build, hardware=hardware, model=model)

    def folder(self, root: Path) -> Path:
        """Return the cache folder of this key."""
        return root / self.build / self.hardware / self.model

    def __str__(self) -> str:
        return f"{self.build}/{self.hardware}/{self.model}"


class PackedFile(_Strict):
    """One file. `mtime` is kept where ninja compares it; every other file gets the time of the import."""

    path: str
    sha256: Digest
    size: Annotated[int, Field(ge=0, le=1 << 36)]
    mtime: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    """Nanoseconds since 1970."""

    @field_validator("path")
    @classmethod
    def _is_inside(cls, path: str) -> str:
        parts = path.split("/")
        if parts[0] not in _TOP or len(parts) < 2 or len(path) > 1000:
            raise ValueError(f"{path[:80]!r} is in no folder of a compiler")
        if not all(_PART.fullmatch(part) for part in parts) or {".", ".."} & set(parts):
            raise ValueError(f"{path[:80]!r} is not a plain relative path")
        return path

    @property
    def family(self) -> str:
        """The compiler that made it: its folder, below `vllm` the folder in it."""
        first, second, *rest = [*self.path.split("/"), ""]
        return f"{first}/{second}" if first == "vllm" and any(rest) else first


class PackManifest(_Strict):
    """What a pack holds, and what it was made by; files are sorted by path."""

    format: Literal[1] = 1
    key: PackKey
    versions: dict[str, Text]
    series: list[Text]
    """The patches of the vLLM that compiled, NAME STATE."""
    gpus: list[Text]
    driver: Text = ""
    root: Text
    """The cache folder that it was exported from: FlashInfer's builds are valid in no other one."""
    plans: dict[str, float]
    """Plans that became ready with these kernels: their fingerprint, and the seconds of their first start."""
    files: Annotated[list[PackedFile], Field(max_length=MOST_FILES)]

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        paths = [file.path for file in self.files]
        if paths != sorted(paths):
            raise ValueError("files are not sorted by path")
        folded = [path.casefold() for path in paths]
        if len(set(folded)) != len(folded):
            raise ValueError("two files have one path, or differ in case alone")
        folders = {str(parent) for path in folded for parent in PurePosixPath(path).parents}
        if clash := folders & set(folded):
            raise ValueError(f"{min(clash)!r} is a file and a folder")
        if len({(file.sha256, file.size) for file in self.files}) != len({file.sha256 for file in self.files}):
            raise ValueError("one hash has two sizes")
        return self

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def blobs(self) -> dict[str, int]:
        """Return each hash with its size, in the order of the archive: a file that is there twice is stored once."""
        return {file.sha256: file.size for file in self.files}

    def families(self) -> dict[str, list[PackedFile]]:
        """Return the files of each kernel family, without notes."""
        found: dict[str, list[PackedFile]] = {}
        for file in self.files:
            if file.family != STARTS:
                found.setdefault(file.family, []).append(file)
        return found

    def to_bytes(self) -> bytes:
        """Return it as JSON; the same manifest is the same bytes."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def parse(data: bytes, where: str) -> PackManifest:
    """Return the manifest that these bytes hold; raise ConfigError for anything else."""
    try:
        return PackManifest.model_validate(plain_file.parse_json(data))
    except ValidationError as error:
        raise ConfigError(f"{where} is not a kernel pack: {NAME}: {sentence(error)}.") from None
    except ValueError as error:
        raise ConfigError(f"{where} is not a kernel pack: {NAME}: {error}.") from None
