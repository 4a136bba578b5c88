"""
The TOML files under profiles/, by kind and name.

Profile files are of six kinds: `base.toml`, `models/*.toml`, `hardware/*.toml`, `architectures/*.toml`, `nccl/*.toml`,
and the profiles themselves. A hardware file that extends none extends the architecture of its compute capability.
Folders named by DSV4_PROFILES (colon-separated) come before the shipped one; a file there replaces the shipped file of
the same name.
"""

from __future__ import annotations

import functools
import os.path
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from .. import toml_file
from ..errors import ConfigError, listed, nearest
from ..plan import Value
from ..vllm_schema import settings
from . import tuned_kernels, unsupported
from .mistakes import sentence
from .schema import Base, Hardware, Model, Profile, Root, Sibling

SHIPPED = Path(__file__).resolve().parents[2] / "profiles"

ANY_GPU = "gpu"
"""The architecture that every GPU's hardware file extends in the end."""

MOST_FILES = 1000
"""Files of one kind; reading 1,000 takes about a second."""
MOST_LINKS = 16
"""Files that extend each other in a row."""

S = TypeVar("S", bound=Base)


class ProfileFile(Generic[S]):
    """A validated file: `name` as users type it, `file` as messages show it, and the file that it extends."""

    def __init__(self, name: str, file: str, own: S, parent: ProfileFile[S] | None = None) -> None:
        self.name, self.file, self.own, self.parent = name, file, own, parent

    def chain(self) -> list[ProfileFile[S]]:
        """Return the files that this one extends, lowest first, itself last."""
        return [*(self.parent.chain() if self.parent else []), self]

    def is_one_of(self, names: list[str]) -> bool:
        """Return whether `names` has this file, or one that it extends within the same architecture."""
        own = self.get("architecture") if isinstance(self.own, Model) else ""
        return any(link.name in names and (not own or link.get("architecture") == own) for link in self.chain())

    def get(self, key: str) -> Any:
        """Return a key of this file, or of the nearest extended file that sets it."""
        if self.parent and key not in self.own.model_fields_set:
            return self.parent.get(key)
        return getattr(self.own, key)

    def file_of(self, key: str) -> str:
        """Return the file that `get` takes a key from."""
        return self.parent.file_of(key) if self.parent and key not in self.own.model_fields_set else self.file

    def flags(self) -> dict[str, Value]:
        """Return the flags of `[flags]` over those of the files it extends; raise ConfigError as a plan would."""
        return dict(self._flags)

    @functools.cached_property
    def _flags(self) -> dict[str, Value]:
        each = (settings.flags(link.own.flags, f"{link.file} [flags]") for link in self.chain())
        return {name: value for flags in each for name, value in flags.items()}


_Names = dict[str, list[str]]
_Own = dict[str, tuple[str, Any]]
_Found = dict[tuple[str, str], ProfileFile[Any]]


class Catalog:
    """All profile files, by kind and name; each is read on demand, and once."""

    KINDS: Mapping[str, tuple[str, type[Base]]] = {
        "profile": ("", Profile),
        "model": ("models", Model),
        "hardware": ("hardware", Hardware),
        "architecture": ("architectures", Hardware),
        "nccl": ("nccl", Base),
    }

    def __init__(self, folders: list[Path]) -> None:
        """`folders` come before the shipped one; each must exist."""
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"environment DSV4_PROFILES: {folder} is not a folder; use folders of profile files.")
        self.folders = [*folders, SHIPPED]
        self._names, self._own, self._found = ({}, {}, {}) if folders else _of_shipped(SHIPPED)

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, sorted."""
        if kind not in self._names:
            inside = self.KINDS[kind][0]
            stems = {p.stem for f in self.folders for p in (f / inside).glob("*.toml")}
            if len(stems) > MOST_FILES:
                raise ConfigError(
                    f"environment DSV4_PROFILES: {len(stems)} files of one kind, more than {MOST_FILES}; use fewer."
                )
            self._names[kind] = sorted(stems - ({"base"} if kind == "profile" else set()), key=_natural)
        return self._names[kind]

    def root(self) -> ProfileFile[Root]:
        """Return base.toml."""
        if ("base", "") not in self._found:
            self._found["base", ""] = ProfileFile("base", *self._read("base.toml", Root))
        return self._found["base", ""]

    def profile(self, name: str, origin: str) -> ProfileFile[Profile]:
        """Return a profile; raise ConfigError if there is none of that name."""
        return self._file("profile", Profile, name, origin)

    def model(self, name: str, origin: str) -> ProfileFile[Model]:
        """Return a model; raise ConfigError if there is none of that name."""
        return self._file("model", Model, name, origin)

    def hardware(self, name: str, origin: str) -> ProfileFile[Hardware]:
        """Return a hardware file by its name, or by its GPU's name in NVML; raise ConfigError if there is none."""
        return self._file("hardware", Hardware, self._hardware_name(name, origin), origin)

    def architecture(self, capability: str) -> ProfileFile[Hardware]:
        """Return the settings that are safe for a compute capability; those of any GPU where it has no file."""
        named = f"sm-{capability}"
        return self._file("architecture", Hardware, named if named in self.names("architecture") else ANY_GPU, "")

    def nccl(self, name: str, origin: str) -> ProfileFile[Base]:
        """Return a named set of NCCL variables; raise ConfigError if there is none of that name."""
        return self._file("nccl", Base, name, origin)

    def every_hardware(self) -> Iterator[ProfileFile[Hardware]]:
        """Yield every hardware file."""
        return (self.hardware(name, "") for name in self.names("hardware"))

    def every_architecture(self) -> Iterator[ProfileFile[Hardware]]:
        """Yield every architecture."""
        return (self._file("architecture", Hardware, name, "") for name in self.names("architecture"))

    def every_model(self) -> Iterator[ProfileFile[Model]]:
        """Yield every model."""
        return (self.model(name, "") for name in self.names("model"))

    def model_of(self, repository: str) -> ProfileFile[Model] | None:
        """Return the model whose own file names this repository, ignoring case, or None."""
        requested = repository.lower()
        for model in self.every_model():
            own = [str(model.own.flags.get("model", "")), *model.own.repositories]
            if requested and requested in map(str.lower, own):
                return model
        return None

    def sibling_of(self, repository: str) -> tuple[ProfileFile[Model], Sibling] | None:
        """Return the model that has this repository as a sibling, ignoring case, and what the table says of it."""
        for model in self.every_model():
            for sibling in model.own.siblings:
                if sibling.repository.lower() == repository.lower():
                    return model, sibling
        return None

    def _file(self, kind: str, model: type[S], name: str, origin: str) -> ProfileFile[S]:
        """Return a file with those that it extends: the same object each time, as it keeps what follows from it."""
        if (kind, name) not in self._found:
            self._found[kind, name] = self._linked(kind, model, name, origin)
        return self._found[kind, name]

    def _linked(self, kind: str, model: type[S], name: str, origin: str, above: tuple[str, ...] = ()) -> ProfileFile[S]:
        self._check_name(kind, name, origin)
        inside = self.KINDS[kind][0]
        file, own = self._read(f"{inside}/{name}.toml".lstrip("/"), model)
        if own.extends in (*above, name):
            raise ConfigError(f"{file}: extends = {own.extends!r} leads back to this file; extend another {kind}.")
        parent: Any = None
        if own.extends:
            if len(above) >= MOST_LINKS:
                raise ConfigError(f"{file}: more than {MOST_LINKS} files extend each other; extend fewer.")
            parent = self._linked(kind, model, own.extends, f"{file}: extends", (*above, name))
        elif kind == "hardware" and isinstance(own, Hardware) and own.interconnect != "none":
            parent = self.architecture(own.compute_capability)
        linked = ProfileFile(name, file, own, parent)
        if isinstance(own, Hardware) and own.tuned_kernels:
            tuned_kernels.check_gpus(file, Path(own.tuned_kernels), linked.get("nvml_names"))
        return linked

    def _read(self, relative: str, model: type[S]) -> tuple[str, S]:
        if relative not in self._own:
            self._own[relative] = self._read_now(relative, model)
        return self._own[relative]

    def _read_now(self, relative: str, model: type[S]) -> tuple[str, S]:
        folder = next(f for f in self.folders if os.path.lexists(f / relative))
        file = relative if folder == SHIPPED else str(folder / relative)
        try:
            own = _shipped(folder / relative, model) if folder == SHIPPED else _parsed(folder / relative, model)
        except ValidationError as error:
            raise ConfigError(sentence(file, model, error)) from None
        for block in (*own.when, *own.refuse):
            for kind, name in block.named():
                self._check_name(kind, name, f"{file} {block.TABLE} {kind}")
        places = [each / Path(relative).parent for each in self.folders[self.folders.index(folder) :]]
        tables = _tables_of(own, file, places)
        return file, own.model_copy(update=tables) if tables else own

    def _hardware_name(self, name: str, origin: str) -> str:
        """Return the name of the hardware file that is meant; another spelling of it and NVML's name are accepted."""
        if name in self.names("hardware"):
            return name
        requested = unsupported.folded(name)
        for file in self.every_hardware():
            if requested in map(unsupported.folded, (file.name, *file.own.nvml_names)):
                return file.name
        if reason := unsupported.by_name(name):
            raise ConfigError(f"{origin}: {name} cannot serve DeepSeek-V4 here: {reason}.")
        raise ConfigError(
            f"{origin}: there is no hardware {name!r}. Known: {listed(self.names('hardware'))}. For another GPU, leave"
            " the hardware out on its host, where its facts are read, or write a file (docs/how-to/own-hardware.md)."
        )

    def _check_name(self, kind: str, name: str, origin: str) -> None:
        known = self.names(kind)
        if name not in known:
            what = "NCCL set" if kind == "nccl" else kind
            hint = nearest(name, known) if kind in ("profile", "nccl") else ""  # another model or GPU is no typo
            raise ConfigError(f"{origin}: there is no {what} {name!r}{hint}. Known: {', '.join(known)}.")


@functools.cache
def _of_shipped(_folder: Path) -> tuple[_Names, _Own, _Found]:
    """Return what catalogs of the shipped files alone share."""
    return {}, {}, {}


def _tables_of(own: Base, file: str, places: Sequence[Path]) -> dict[str, str]:
    """Return the folder of tables that a hardware file names, as a path; nothing for other files."""
    if not isinstance(own, Hardware) or not own.tuned_kernels:
        return {}
    return {"tuned_kernels": str(tuned_kernels.located(own, file, places))}


def _parsed(path: Path, model: type[S]) -> S:
    return model.model_validate(toml_file.read(path))


_shipped = functools.cache(_parsed)
"""A request looks through all models several times."""


def _natural(name: str) -> tuple[int, str]:
    digits = name[: len(name) - len(name.lstrip("0123456789"))]
    scale = 1000 if name[len(digits) :].startswith("m") else 1
    return (int(digits) * scale if digits else 10**9, name)
