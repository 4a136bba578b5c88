"""The schema of profile files, one model for each kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from ..errors import listed, nearest


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
    """When a block applies: every given key must match; a list matches any of its values."""

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
    """Settings for some combinations only."""

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
        """Yield every profile file that is named, those of `except-hardware` too."""
        yield from super().named()
        yield from (("hardware", name) for name in self.except_hardware)


class DefaultModel(_Table):
    """The default model on this hardware, and the reason; `profiles` includes those that extend them."""

    model: str
    because: str
    profiles: Names = []
    tensor_parallel_size: Sizes = []


class Measured(_Table):
    """One figure: what was measured, on which hardware and model, with which vLLM, when, and its source."""

    what: str
    hardware: str
    model: str
    vllm: str
    date: str
    source: str


class Base(_Table):
    """What every profile file may contain."""

    about: str = ""
    extends: str = ""
    flags: Settings = {}
    env: Variables = {}
    gate: Settings = {}
    supervise: Settings = {}
    when: list[When] = []
    refuse: list[Constraint] = []


class Root(Base):
    """base.toml."""

    default_profile: str = ""


class Profile(Base):
    """One named way to serve. Without `models`, `hardware` or `tensor-parallel-sizes` it suits any."""

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
    """One kind of GPU: its names in NVML, its memory, how GPUs of this kind are connected."""

    nvml_names: list[str] = []
    compute_capability: str = ""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    interconnect: str = ""
    nccl: str = ""
    prompt_graphs: list[Annotated[int, Field(gt=0)]] = []
    default_model: list[DefaultModel] = []


_INNER: dict[str, type[_Table]] = {
    "when": When,
    "refuse": Constraint,
    "measured": Measured,
    "default-model": DefaultModel,
}


def sentence(file: str, model: type[BaseModel], error: ValidationError) -> str:
    """Return what is wrong with a file, and what to write instead."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{file}: {where} = {first['input']!r} is not valid: {first['msg'].lower()}."
    *tables, key = first["loc"]
    if tables:
        model = _INNER[str(tables[0])]
    keys = [field.alias or name for name, field in model.model_fields.items()]
    hint = nearest(str(key), keys)
    flags = " Put vLLM's flags under [flags]." if not hint and not tables else ""
    return f"{file}: unknown key {where!r}{hint}. Valid keys: {listed(keys)}.{flags}"
