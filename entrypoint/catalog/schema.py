"""The schema of profile files, one model for each kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from ..validation import text_like

_AS_LIST = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
Names = Annotated[list[str], _AS_LIST]
Sizes = Annotated[list[Annotated[int, Field(ge=1, strict=True)]], _AS_LIST]
GiB = Annotated[float, Field(le=100_000, allow_inf_nan=False, strict=True)]
PositiveGiB = Annotated[GiB, Field(gt=0)]
Settings = dict[str, JsonValue]
Variable = Annotated[
    str, text_like("[A-Z_][A-Z0-9_]*", "name a variable (capital letters, digits and underscores, no digit first)")
]
Variables = dict[Variable, str | int | float | bool]
FolderBeside = Annotated[
    str,
    text_like(
        "([A-Za-z0-9][A-Za-z0-9._-]*)?",
        "name a folder beside this file (letters, digits, dots, hyphens and underscores, a letter or digit first)",
    ),
]


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), validate_by_name=False
    )


class Conditions(_Table):
    """When a block applies: every given condition must match; a list matches any of its values."""

    TABLE: ClassVar[str]
    profile: Names = []
    """Names of profiles."""
    model: Names = []
    """Names of models."""
    hardware: Names = []
    """Names of hardware files."""
    tensor_parallel_size: Sizes = []
    """Numbers of GPUs over which the model is split."""

    def given(self) -> dict[str, list[Any]]:
        """Return the conditions that are set, by key."""
        keys = ("profile", "model", "hardware", "tensor_parallel_size")
        return {k.replace("_", "-"): getattr(self, k) for k in keys if getattr(self, k)}

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the name of every profile file that a condition names."""
        for kind in ("profile", "model", "hardware"):
            yield from ((kind, name) for name in getattr(self, kind))


class When(Conditions):
    """Settings that hold only for some combinations."""

    TABLE: ClassVar[str] = "[[when]]"
    flags: Settings = {}
    """vLLM's flags for these combinations, as in `[flags]`."""
    env: Variables = {}
    """Variables of vLLM's environment for these combinations, as in `[env]`."""
    gate: Settings = {}
    """Settings of the gate for these combinations, as in `[gate]`."""
    supervise: Settings = {}
    """Settings of the supervisor for these combinations, as in `[supervise]`."""


class Constraint(Conditions):
    """A combination that is known to fail, why, and what to do instead. It is refused unless `--skip` names it."""

    TABLE: ClassVar[str] = "[[refuse]]"

    name: str
    """The name that `--skip` takes."""
    because: str
    """Why the combination fails."""
    instead: str
    """What to do instead, as an instruction."""
    except_hardware: Names = []
    """Names of hardware files for which the block does not apply."""
    model_id: Names = []
    """Globs of repositories or folders, matched against the final `model` flag."""
    drafter: Names = []
    """Kinds of drafter (`mtp`, `dspark`, `none`), as the checkpoint's files or the model's `drafter` give them."""
    flags: Settings = {}
    """Final values of vLLM's flags; a list matches any, `*` makes a glob, `false` matches an unset switch too."""
    env: Variables = {}
    """Final values of environment variables; each is a glob, and case does not count."""

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield every profile file that is named, those of `except-hardware` too."""
        yield from super().named()
        yield from (("hardware", name) for name in self.except_hardware)


class DefaultModel(_Table):
    """The model served on this hardware when none is named; the first block that applies counts."""

    model: str
    """The name of the model."""
    because: str
    """Why it is the default; `dsv4 explain` shows it."""
    profiles: Names = []
    """Profiles for which the block applies, with those that extend them. Any if absent."""
    tensor_parallel_size: Sizes = []
    """Numbers of GPUs for which the block applies. Any if absent."""


class Measured(_Table):
    """One measured figure, as `dsv4 profiles` shows it."""

    what: str
    """The figure, with its unit."""
    hardware: str
    """The GPUs, with their number."""
    model: str
    """The model that was served."""
    vllm: str
    """The version of vLLM."""
    date: str
    """The day or month of the measurement."""
    source: str
    """The result file, command, page or card that the figure comes from."""
    short: Annotated[str, Field(max_length=26)] = ""
    """Output tokens per second in a few words, for `dsv4 profiles --here`; it needs `kind` and `gpus`."""
    kind: str = ""
    """The name of the hardware file whose GPUs were measured."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """How many GPUs the replica had."""


class DraftTokensByLoad(_Table):
    """The measured time per output token with one number of draft tokens, by the number of concurrent requests."""

    model: str
    """The name of the model."""
    drafter: Literal["mtp", "dspark", "none"]
    """The kind of drafter; `none` is serving without drafts."""
    tokens: Annotated[int, Field(ge=0)]
    """Draft tokens of a step; 0 without drafts."""
    tpot_ms: list[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0)]]]
    """Pairs of concurrent requests and the median time per output token, in ms."""
    conditions: str
    """What was measured: the share of a model, weights, prompts, and how many draft tokens are accepted."""
    source: str
    """The result file."""


class Base(_Table):
    """What every profile file may contain."""

    about: str = ""
    """One line that describes the file."""
    extends: str = ""
    """The name of a file of the same kind that this one is laid over."""
    flags: Settings = {}
    """vLLM's long flags, without the leading `--`."""
    env: Variables = {}
    """Variables of vLLM's environment."""
    gate: Settings = {}
    """What a replica must prove before it receives traffic."""
    supervise: Settings = {}
    """How the engine is watched and stopped."""
    when: list[When] = []
    """Settings that hold only for some combinations; later blocks override earlier ones."""
    refuse: list[Constraint] = []
    """Combinations that are known to fail."""


class Root(Base):
    """`base.toml`, the lowest layer."""

    default_profile: str = ""
    """The profile that is served when none is named."""


class Profile(Base):
    """A profile: one way to serve. Without `models`, `hardware` or `tensor-parallel-sizes` it suits any."""

    requests: Annotated[int, Field(ge=1)] | None = None
    """Requests of full length that the profile promises to run at once; `max-num-seqs` if absent."""
    models: list[str] = []
    """Models that the profile is tuned for, with those that extend them."""
    hardware: list[str] = []
    """Hardware or architectures that the profile is for, with those that extend them; `gpu` is any GPU."""
    tensor_parallel_sizes: Sizes = []
    """Numbers of GPUs that the profile may be split over."""
    nccl: str = ""
    """The set of NCCL variables, in place of the one by topology or hardware; `--nccl` wins over it."""
    measured: list[Measured] = []
    """Figures that were measured with this profile."""


class ModelDrafter(_Table):
    """What a model's checkpoint ships to draft with, under `mtp.*`."""

    kind: Literal["mtp", "dspark", "none"] = "none"
    """`mtp`, one MTP layer; `dspark`, a DSpark drafter; or `none`."""
    scheme: str = ""
    """How its routed experts are stored, as in the model's `scheme`."""
    layers: Annotated[int, Field(ge=0)] = 0
    """Its layers."""
    block_size: Annotated[int, Field(ge=0)] = 0
    """The most tokens that a DSpark drafter drafts at once."""
    gib: Annotated[GiB, Field(ge=0)] = 0.0
    """Its part of `weights-gib`."""


class Sibling(_Table):
    """A repository of the same target model with another drafter, or with none."""

    repository: str
    """Its exact name."""
    drafter: ModelDrafter = ModelDrafter()
    """What it ships to draft with; none if absent."""
    weights_gib: PositiveGiB | None = None
    """Its weights on all GPUs together, in GiB; the model's own if absent."""
    unknown: str = ""
    """What is taken for granted of it until its files are read; `dsv4 explain` says so."""


class Model(Base):
    """A model: one artifact, with its layout on disk, its drafter and its size."""

    architecture: str = ""
    """The name of the model's architecture; a checkpoint of another one is not this model."""
    scheme: str = ""
    """How the weights are quantized; it is compared with the checkpoint."""
    drafter: ModelDrafter = ModelDrafter()
    """What the checkpoint ships to draft with; it is compared with the checkpoint."""
    weights_gib: PositiveGiB | None = None
    """The weights on all GPUs together, in GiB. `dsv4 fit` needs it."""
    files_gib: PositiveGiB | None = None
    """The files on disk, in GiB, where that is known to differ from `weights-gib`."""
    replicated_gib: Annotated[GiB, Field(ge=0)] = 0.0
    """The part of the weights that every GPU holds in full, in GiB."""
    tensor_parallel_sizes: Sizes = []
    """Numbers of GPUs that the model can be split over."""
    repositories: list[str] = []
    """Other repositories that hold this model, each by its exact name; the files decide wherever they are at hand."""
    siblings: list[Sibling] = []
    """Repositories of the same target model with another drafter; the files decide wherever they are at hand."""


class Hardware(Base):
    """
    One kind of GPU: its names in NVML, its memory, and how GPUs of this kind are connected.

    A file that extends no other extends the architecture of its compute capability (`architectures/`).
    """

    nvml_names: list[str] = []
    """The GPU's names as `nvidia-smi -L` prints them; they identify the hardware."""
    compute_capability: str = ""
    """The compute capability, such as `12.0`."""
    memory_gib: PositiveGiB | None = None
    """The memory of one GPU as CUDA sees it, in GiB. `dsv4 fit` needs it."""
    overhead_gib: PositiveGiB | None = None
    """What NCCL, libraries and the indexer's logits take of one GPU, in GiB; a measured figure if absent."""
    interconnect: str = ""
    """How GPUs of this kind are connected: `nvlink` or `pcie`."""
    gpus_per_host: Annotated[int, Field(ge=0)] = 0
    """How many GPUs a host of this kind has, where it is always the same number; 0 where it differs."""
    processor: Literal["x86-64", "aarch64"] = "x86-64"
    """The hosts' processors; the image is for x86-64."""
    nccl: str = ""
    """The set of NCCL variables that applies unless the topology or `--nccl` says otherwise."""
    prompt_graphs: list[Annotated[int, Field(gt=0)]] = []
    """Sizes in tokens for which CUDA graphs of prompts are captured too, as far as they leave the promised requests."""
    prompt_graphs_measured: bool = False
    """Whether `prompt-graphs` was measured on this hardware; all of them are captured then, whatever they leave."""
    mxfp4_expert_inputs: Literal["bf16", "fp8"] = "bf16"
    """Inputs of DeepSeek's MXFP4 experts on Humming: BF16, or FP8 (on H200 without tables slower for one request)."""
    tuned_kernels: FolderBeside = ""
    """A folder beside the hardware files with tables of measured kernels for experts, used where they fit."""
    default_profile: str = ""
    """The profile that is served when none is named, in place of `default-profile` in base.toml."""
    default_model: list[DefaultModel] = []
    """The models that are served when none is named."""
    k_by_load: list[DraftTokensByLoad] = []
    """What numbers of draft tokens are worth under load on this hardware; unmeasured if absent."""
