"""
Write a checkpoint folder without weights: the configuration of a published model at its real size, and a tokenizer.

vLLM fills the weights with random numbers (`--load-format dummy`), so the answers mean nothing but the cost is real:
every shape, format and kernel is the published model's. Draft tokens are accepted at random at a stated rate
(`rejection_sample_method: synthetic`), and `dsv4 bench` routes to random experts.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...demo import deepseek_v4, v4_layouts
from ...demo.tokenizer import BOS, EOS, MARKS, added_tokens
from ...demo.v4_weights import Dims
from ..catalog import demo_layout
from ..catalog.catalog import ProfileFile
from ..catalog.schema import Model
from ..errors import ConfigError, UsageError

INDEX = "model.safetensors.index.json"
_NO_FILE = "not-here.safetensors"
_UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Published(Dims):
    """Sizes of a published model; unlike those of Dims they need not suit constructed weights."""

    def __post_init__(self) -> None:
        """Allow any size."""


SIZES = {
    "deepseek-v4-flash": Published(
        hidden=4096, heads=64, q_lora=1024, o_groups=8, o_lora=1024, inter=2048, experts=256, hash_layers=3,
        ratios=(0, 0, *(4, 128) * 20, 4), vocab=129280,
    ),
    "deepseek-v4-pro": Published(
        hidden=7168, heads=128, q_lora=1536, o_groups=16, o_lora=1024, inter=3072, experts=384, hash_layers=3,
        ratios=(128, 128, *(4, 128) * 29, 4), vocab=129280, index_topk=1024,
    ),
}  # fmt: skip
"""By architecture, from the publishers' config.json (Flash: 43 layers, Pro: 61)."""

SKIPPED = ("weights-present",)
"""Checks of the doctor that cannot pass without weights."""


def layout_of(model: ProfileFile[Model]) -> str:
    """Return the layout on disk of a model; raise ConfigError where none is known."""
    architecture, scheme, drafter = str(model.get("architecture")), str(model.get("scheme")), model.get("drafter")
    if layout := demo_layout.layout_of(architecture, scheme, drafter.kind, drafter.scheme):
        return layout
    kind = f"{drafter.kind} {drafter.scheme}".strip()
    raise ConfigError(
        f"--without-weights does not support the layout of the model {model.name} ({scheme}, drafter {kind})."
    )


def write(folder: Path, architecture: str, layout: str, sizes: Dims | None = None) -> None:
    """
    Write config.json, a tokenizer of the whole vocabulary, and an index that lists the draft head.

    `sizes` default to those of `architecture`. Raise ConfigError for an architecture of unknown size.
    """
    dims = sizes or SIZES.get(architecture)
    if dims is None:
        raise ConfigError(f"--without-weights supports {' and '.join(SIZES)}, not {architecture}.")
    files: dict[str, Any] = {
        "config.json": v4_layouts.config(layout, dims),
        INDEX: {"weight_map": dict.fromkeys(draft_tensors(layout, dims.experts), _NO_FILE)},
        "tokenizer.json": _tokenizer(dims.vocab),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "unk_token": _UNKNOWN,
            "clean_up_tokenization_spaces": False,
            "model_max_length": dims.max_positions,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        fresh = folder / f".{name}.{os.getpid()}"
        fresh.write_text(json.dumps(body), encoding="utf-8")
        fresh.replace(folder / name)  # another replica may be reading it


def draft_tensors(layout: str, experts: int) -> list[str]:
    """Return the names of the draft head's tensors: by them the patched vLLM decides how the draft is stored."""
    few = Dims(experts=8, vocab=64, ratios=(0,))
    with tempfile.TemporaryDirectory() as scratch:
        deepseek_v4.write(scratch, layout, few)
        names = json.loads(Path(scratch, INDEX).read_text(encoding="utf-8"))["weight_map"]
    return [full for name in names if name.startswith("mtp.") for full in _every_expert(name, few.experts, experts)]


def _every_expert(name: str, few: int, experts: int) -> Iterator[str]:
    head, expert, rest = name.partition(".ffn.experts.")
    number, _, weight = rest.partition(".")
    if not expert:
        yield name
    elif int(number) == few - 1:
        yield from (f"{head}.ffn.experts.{index}.{weight}" for index in range(experts))


def _tokenizer(vocab: int) -> dict[str, Any]:
    """
    Return a tokenizer that writes token N as the word `tN`, so that its texts keep their number of tokens.

    Its first tokens are DeepSeek-V4's marks, without which SGLang 0.5.23 does not start: it encodes a chat before. They
    are longer than every word with the space after it: vLLM refuses a text that has more characters than its longest
    token times the context, before it counts tokens (vllm/renderers/params.py).
    """
    special = (BOS, EOS, _UNKNOWN)
    marks = (*special, *MARKS[2:])
    tokens = [*marks, *(f"t{number}" for number in range(len(marks), vocab))]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens({mark: number for number, mark in enumerate(marks)}, special),
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "unk_token": _UNKNOWN,
        },
    }


def acceptance_rates(chances: Sequence[float], draft_tokens: int) -> list[float]:
    """
    Return the share of drafts accepted up to each position, for `synthetic_acceptance_rates`.

    One value is the chance of every draft token whose predecessors were accepted; several are the shares themselves.
    Raise UsageError for invalid or increasing shares, and unless there is one for each draft token.
    """
    if any(not 0 <= chance <= 1 for chance in chances):
        raise UsageError("--acceptance: a share must be between 0 and 1.")
    if len(chances) == 1:
        return [round(chances[0] ** (position + 1), 6) for position in range(draft_tokens)]
    if len(chances) != draft_tokens or list(chances) != sorted(chances, reverse=True):
        raise UsageError(
            f"--acceptance: give one share, or {draft_tokens} shares that do not increase, one for each draft token."
        )
    return list(chances)


def flags(rates: Sequence[float]) -> list[str]:
    """Return the flags of `serve` for such a folder: dummy weights, synthetic acceptance, and proofs that only warn."""
    speculative = [
        *("--speculative-config.rejection_sample_method", "synthetic"),
        *("--speculative-config.synthetic_acceptance_rates", json.dumps(list(rates))),
    ]
    proofs = ["--gate.below-floor", "warn", "--gate.corrupted", "warn", "--gate.tokens", "4", "--gate.concurrency", "2"]
    skips = [argument for name in SKIPPED for argument in ("--skip", name)]
    return ["--load-format", "dummy", *(speculative if rates else []), *proofs, *skips]
