"""
The TOML files under profiles/: their schema, and reading them.

There are five kinds of profile file: `base.toml`, `models/*.toml`, `hardware/*.toml`, `nccl/*.toml`, and the profiles
themselves. Folders named by DSV4_PROFILES (colon-separated) come before the shipped one; a file there replaces the
shipped file of the same name.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from .. import toml_file
from ..errors import ConfigError, listed, nearest
from ..plan import Value
from ..vllm_schema import settings

SHIPPED = Path(__file__).resolve().parents[2] / "profiles"


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Names = Annotated[list[str], BeforeValidator(_as_list)]
Sizes = Annotated[list[Annotated[int, Field(ge=1, strict=True)]], BeforeValidator(_as_list)]
Settings = dict[str, JsonValue]
Variables = dict[Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")], str | int | float | bool]


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), validate_by_name=False
    )


class Conditions(_Table):
    """When a block applies: every key that is given has to match; a list matches any of its values."""

    TABLE: ClassVar[str]
    profile: Names = []
    model: Names = []
    hardware: Names = []
    tensor_parallel_size: Sizes = []

    def given(self) -> dict[str, list[Any]]:
        """Return the conditions that are set, by key."""
        keys = ("profile", "model", "hardware", "tensor_parallel_size")
        return {k.replace("_", "-"): getattr(self, k) for k in keys if getattr(self, k)}

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the name of every profile file that a condition names."""
        for kind in ("profile", "model", "hardware"):
            yield from ((kind, name) for name in getattr(self, kind))


class When(Conditions):
    """Settings that hold for some combinations only."""

    TABLE: ClassVar[str] = "[[when]]"
    flags: Settings = {}
    env: Variables = {}
    gate: Settings = {}
    supervise: Settings = {}


class Constraint(Conditions):
    """
    A combination known to fail: why, and what to do instead.

    `flags` and `env` match final values, `model-id` is a glob.
    """

    TABLE: ClassVar[str] = "[[refuse]]"

    name: str
    because: str
    instead: str
    except_hardware: Names = []
    model_id: Names = []
    draft_head: Names = []
    flags: Settings = {}
    env: Variables = {}

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield what the conditions name, and what they leave out."""
        yield from super().named()
        yield from (("hardware", name) for name in self.except_hardware)


class DefaultModel(_Table):
    """The model served on this hardware when none is named, and the reason; `profiles` counts what extends them too."""

    model: str
    because: str
    profiles: Names = []
    tensor_parallel_size: Sizes = []


class Measured(_Table):
    """One figure: what was measured, on which hardware and model, with which vLLM, when, and who says so."""

    what: str
    hardware: str
    model: str
    vllm: str
    date: str
    source: str


class Base(_Table):
    """base.toml, and what every other profile file may hold too."""

    about: str = ""
    extends: str = ""
    flags: Settings = {}
    env: Variables = {}
    gate: Settings = {}
    supervise: Settings = {}
    when: list[When] = []
    refuse: list[Constraint] = []


class Root(Base):
    """base.toml itself."""

    default_profile: str = ""


class Profile(Base):
    """One named way to serve. Without `models`, `hardware` or `tensor-parallel-sizes` it is good for any."""

    requests: Annotated[int, Field(ge=1)] | None = None
    models: list[str] = []
    hardware: list[str] = []
    tensor_parallel_sizes: Sizes = []
    measured: list[Measured] = []


class Model(Base):
    """One artifact: how it is laid out on disk, its draft head, its size, where it fits."""

    architecture: str = ""
    scheme: str = ""
    draft_head: str = ""
    weights_gib: Annotated[float, Field(gt=0)] | None = None
    replicated_gib: Annotated[float, Field(ge=0)] = 0.0
    tensor_parallel_sizes: Sizes = []
    repositories: list[str] = []
    """Globs of other repositories that are served as this model."""


class Hardware(Base):
    """One kind of GPU: how NVML calls it, its memory, how GPUs of this kind are connected."""

    nvml_names: list[str] = []
    compute_capability: str = ""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    interconnect: str = ""
    nccl: str = ""
    prompt_graphs: list[Annotated[int, Field(gt=0)]] = []
    default_model: list[DefaultModel] = []


S = TypeVar("S", bound=Base)


class ProfileFile(Generic[S]):
    """A validated file: `name` as users type it, `file` as messages show it, and the file that it extends."""

    def __init__(self, name: str, file: str, own: S, parent: ProfileFile[S] | None = None) -> None:
        self.name, self.file, self.own, self.parent = name, file, own, parent

    def chain(self) -> list[ProfileFile[S]]:
        """Return the files that this one extends, lowest first, itself last."""
        return [*(self.parent.chain() if self.parent else []), self]

    def is_one_of(self, names: list[str]) -> bool:
        """Tell whether this file, or one that it extends within the same architecture, is named."""
        own = self.get("architecture") if isinstance(self.own, Model) else ""
        return any(link.name in names and (not own or link.get("architecture") == own) for link in self.chain())

    def get(self, key: str) -> Any:
        """Return a key of this file, or of the nearest one that it extends and that sets it."""
        if self.parent and key not in self.own.model_fields_set:
            return self.parent.get(key)
        return getattr(self.own, key)

    def flags(self) -> dict[str, Value]:
        """Return the flags of `[flags]`, those of what it extends below them; raise ConfigError as a plan would."""
        each = (settings.flags(link.own.flags, f"{link.file} [flags]") for link in self.chain())
        return {name: value for flags in each for name, value in flags.items()}


class Catalog:
    """Every profile file that can be named; each is read when it is asked for."""

    KINDS: Mapping[str, tuple[str, type[Base]]] = {
        "profile": ("", Profile),
        "model": ("models", Model),
        "hardware": ("hardware", Hardware),
        "nccl": ("nccl", Base),
    }

    def __init__(self, folders: list[Path]) -> None:
        """`folders` come before the shipped one; each has to exist."""
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"DSV4_PROFILES names {folder}, which is not a folder; give folders of TOML files.")
        self.folders = [*folders, SHIPPED]

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, sorted."""
        inside = self.KINDS[kind][0]
        found = {p.stem for f in self.folders for p in (f / inside).glob("*.toml")}
        return sorted(found - ({"base"} if kind == "profile" else set()), key=_natural)

    def root(self) -> ProfileFile[Root]:
        """Return base.toml."""
        return ProfileFile("base", *self._read("base.toml", Root))

    def profile(self, name: str, origin: str) -> ProfileFile[Profile]:
        """Return a profile; raise ConfigError when there is none of that name."""
        return self._file("profile", Profile, name, origin)

    def model(self, name: str, origin: str) -> ProfileFile[Model]:
        """Return a model; raise ConfigError when there is none of that name."""
        return self._file("model", Model, name, origin)

    def hardware(self, name: str, origin: str) -> ProfileFile[Hardware]:
        """Return a hardware; raise ConfigError when there is none of that name."""
        return self._file("hardware", Hardware, name, origin)

    def nccl(self, name: str, origin: str) -> ProfileFile[Base]:
        """Return a named set of NCCL variables; raise ConfigError when there is none of that name."""
        return self._file("nccl", Base, name, origin)

    def every_hardware(self) -> Iterator[ProfileFile[Hardware]]:
        """Yield every hardware."""
        return (self.hardware(name, "") for name in self.names("hardware"))

    def every_model(self) -> Iterator[ProfileFile[Model]]:
        """Yield every model."""
        return (self.model(name, "") for name in self.names("model"))

    def model_of(self, repository: str) -> ProfileFile[Model] | None:
        """Return the model whose own file names this repository, in any case; None where there is none."""
        named = ((model, str(model.own.flags.get("model", ""))) for model in self.every_model())
        return next((model for model, own in named if own and own.lower() == repository.lower()), None)

    def _file(self, kind: str, model: type[S], name: str, origin: str, above: tuple[str, ...] = ()) -> ProfileFile[S]:
        self._check_name(kind, name, origin)
        inside = self.KINDS[kind][0]
        file, own = self._read(f"{inside}/{name}.toml".lstrip("/"), model)
        if own.extends in (*above, name):
            raise ConfigError(f"{file}: extends {own.extends!r}, which leads back to itself; extend another {kind}.")
        if not own.extends:
            return ProfileFile(name, file, own)
        return ProfileFile(name, file, own, self._file(kind, model, own.extends, f"{file}: extends", (*above, name)))

    def _read(self, relative: str, model: type[S]) -> tuple[str, S]:
        folder = next(f for f in self.folders if os.path.lexists(f / relative))
        file = relative if folder == SHIPPED else str(folder / relative)
        tables = toml_file.read(folder / relative)
        try:
            own = model.model_validate(tables)
        except ValidationError as error:
            raise ConfigError(_sentence(file, model, error)) from None
        for block in (*own.when, *own.refuse):
            for kind, name in block.named():
                self._check_name(kind, name, f"{file} {block.TABLE} {kind}")
        return file, own

    def _check_name(self, kind: str, name: str, origin: str) -> None:
        known = self.names(kind)
        if name not in known:
            raise ConfigError(f"{origin}: no {kind} named {name!r}{nearest(name, known)}. Known: {', '.join(known)}.")


def _sentence(file: str, model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        keys = [f.alias or n for n, f in model.model_fields.items()]
        hint = nearest(where, keys) if len(first["loc"]) == 1 else ""
        flags = " vLLM's flags go under [flags]." if not hint else ""
        return f"{file}: unknown key {where!r}{hint}. Known: {listed(keys)}.{flags}"
    return f"{file}: {where} = {first['input']!r} is not valid: {first['msg'].lower()}."


def _natural(name: str) -> tuple[int, str]:
    digits = name[: len(name) - len(name.lstrip("0123456789"))]
    scale = 1000 if name[len(digits) :].startswith("m") else 1
    return (int(digits) * scale if digits else 10**9, name)
