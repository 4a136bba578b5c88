"""What a checkpoint is, as its files say: architecture, schemes, drafter, sizes. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DrafterKind = Literal["mtp", "dspark", "none"]


@dataclass(frozen=True)
class Drafter:
    """
    What a checkpoint ships to draft with, under `mtp.*`.

    `mtp` is DeepSeek's MTP head, which drafts one token a run. `dspark` drafts a block of tokens from hidden states of
    the target model.
    """

    kind: DrafterKind = "none"
    scheme: str = ""
    """How its routed experts are stored, by the names of `layout.SCHEMES`; empty where that is not known."""
    layers: int = 0
    block_size: int = 0
    """The most tokens that a DSpark drafter drafts at once; 0 for an MTP head."""
    bytes: int = 0
    """Its size on disk, without what it shares; 0 where the headers were not read."""
    wrong: tuple[str, ...] = ()
    """Fields of config.json that are there and describe no DSpark drafter that vLLM could build."""


@dataclass(frozen=True)
class Unsupported:
    """A quantization or a format that no model here has: its name, what it is, and what would serve it."""

    name: str
    what: str
    loads: str
    """Whether vLLM 0.32.0 loads it for this architecture, and where its source says so."""
    instead: str


@dataclass(frozen=True)
class Identity:
    """
    A checkpoint, from config.json, index and headers.

    `architecture` is DeepSeek-V4's by kind and size, or the class that config.json names; `scheme` is how the target
    model's routed experts are stored, by the names of `layout.SCHEMES`.
    """

    architecture: str
    scheme: str
    drafter: Drafter = field(default_factory=Drafter)
    bytes: int = 0
    """All weights: the files' sizes, or what the index says where there are no files."""
    shared_bytes: int = 0
    """Embedding and output head stored once more under `mtp.*`; vLLM loads the target model's."""
    missing: tuple[str, ...] = ()
    """Files that the index names and the folder lacks, and fields of config.json that vLLM would misread."""
    unsupported: Unsupported | None = None
    expert_rows: int = 0
    """`moe_intermediate_size`; 0 where config.json was not read, or does not say."""
    expert_group_size: int = 0
    """Weights of INT4 experts that share a scale; 0 for other experts, and where config.json does not say."""

    @property
    def loaded_bytes(self) -> int:
        """What vLLM loads with the drafter."""
        return self.bytes - self.shared_bytes
