"""The tensors of a DeepSeek-V4 checkpoint, computed from its config.json: by layer, by module, by scheme. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .described import dspark_layers, number
from .identify import scheme as declared_scheme
from .read import Checkpoint

PROJECTIONS = ("w1", "w2", "w3")
SCALES = ("scale", "weight_scale", "weight_scale_inv")
ATTENTION = ("wq_a", "wq_b", "wkv", "wo_a", "wo_b")
HYPER = ("fn", "base", "scale")
_HEAD = ("norm.weight", "markov_head.markov_w1.weight", "markov_head.markov_w2.weight")


@dataclass(frozen=True)
class Scheme:
    """How routed experts are stored: the tensors of one projection, and the dtype of the first."""

    name: str
    tensors: tuple[str, ...]
    dtype: str
    group: int = 1
    """Inputs that share a scale: a rank's share has to be a multiple."""


SCHEMES = (
    Scheme("w4a16", ("weight_packed", "weight_scale", "weight_shape"), "I32", 128),
    Scheme("nvfp4", ("weight_packed", "weight_scale", "weight_global_scale", "input_global_scale"), "U8", 16),
    Scheme("modelopt-nvfp4", ("weight", "weight_scale", "weight_scale_2", "input_scale"), "U8", 16),
    Scheme("fp8-mxfp4", ("weight", "scale"), "I8", 32),
    Scheme("fp8", ("weight", "scale"), "F8_E4M3", 128),
    Scheme("unquantized", ("weight",), "BF16"),
)
_BY_NAME = {scheme.name: scheme for scheme in SCHEMES}


def target_layers(config: Mapping[str, Any]) -> list[str]:
    """Return the prefixes of the target model's layers."""
    return [f"layers.{layer}" for layer in range(number(config, "num_hidden_layers"))]


def draft_layers(config: Mapping[str, Any]) -> list[str]:
    """Return the prefixes of the MTP layers."""
    return [f"mtp.{layer}" for layer in range(number(config, "num_nextn_predict_layers"))]


def scheme(checkpoint: Checkpoint, prefix: str) -> Scheme | None:
    """Return how the routed experts of one layer are stored; None when they are stored in no known way."""
    for projection in PROJECTIONS:
        module = f"{prefix}.ffn.experts.0.{projection}"
        for known in SCHEMES:
            if checkpoint.dtype(f"{module}.{known.tensors[0]}") == known.dtype:
                return known
    return None


def missing_of_dspark(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield every tensor that a DSpark drafter lacks; it may do without a confidence head."""
    layers = [f"mtp.{layer}" for layer in range(dspark_layers(checkpoint.config.value))]
    for prefix in layers:
        yield from missing(checkpoint, prefix, head=False)
    yield from _missing_of(checkpoint, "mtp.0.main_proj")
    last = [*_HEAD, *(f"hc_head_{part}" for part in HYPER)]
    names = ["mtp.0.main_norm.weight", *(f"{layers[-1]}.{name}" for name in last)]
    yield from (name for name in names if name not in checkpoint.tensors)


def missing(checkpoint: Checkpoint, prefix: str, *, head: bool = True) -> Iterator[str]:
    """
    Yield every tensor that one layer lacks; the routed experts are counted in the layer's own scheme.

    Experts that are stored in no known way are counted in the scheme that config.json declares; if that is none of
    ours, the experts are one name.
    `head` is whether a layer under mtp.* has what an MTP layer has around its block.
    """
    config, tensors = checkpoint.config.value, checkpoint.tensors
    head = head and prefix.startswith("mtp.")
    yield from (name for name in _plain(config, prefix, head) if name not in tensors)
    for module in _modules(config, prefix, head):
        yield from _missing_of(checkpoint, module)
    stored = scheme(checkpoint, prefix) or _BY_NAME.get(declared_scheme(config))
    if stored is None:
        yield f"{prefix}.ffn.experts.*"
        return
    suffixes = _expert_tensors(number(config, "n_routed_experts"), stored.tensors)
    yield from (name for suffix in suffixes if (name := prefix + suffix) not in tensors)


@cache
def _expert_tensors(experts: int, tensors: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        f".ffn.experts.{expert}.{projection}.{tensor}"
        for expert in range(experts)
        for projection in PROJECTIONS
        for tensor in tensors
    )


def missing_outside(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield the tensors outside of all layers that are not there."""
    names = ["embed.weight", "norm.weight", *(f"hc_head_{part}" for part in HYPER)]
    if checkpoint.config.value.get("tie_word_embeddings") is not True:
        names.append("head.weight")
    yield from (name for name in names if name not in checkpoint.tensors)


def compressors(config: Mapping[str, Any], prefix: str) -> list[str]:
    """Return the compressors of a layer: none, its own, or its own and that of its indexer."""
    kind, _, layer = prefix.partition(".")
    ratios = config.get("compress_ratios")
    ratio = ratios[int(layer)] if kind == "layers" and isinstance(ratios, list) and int(layer) < len(ratios) else 0
    own, indexer = f"{prefix}.attn.compressor", f"{prefix}.attn.indexer.compressor"
    return {4: [own, indexer], 128: [own]}.get(ratio, []) if isinstance(ratio, int) else []


def _plain(config: Mapping[str, Any], prefix: str, head: bool) -> Iterator[str]:
    """Yield the names of what is never quantized."""
    kind, _, layer = prefix.partition(".")
    norms = ["attn_norm", "ffn_norm", "attn.q_norm", "attn.kv_norm", "ffn.gate"]
    norms += ["enorm", "hnorm", "norm"] if head else []
    yield from (f"{prefix}.{norm}.weight" for norm in norms)
    parts = ("attn", "ffn", "head") if head else ("attn", "ffn")
    yield from (f"{prefix}.hc_{part}_{name}" for part in parts for name in HYPER)
    yield f"{prefix}.attn.attn_sink"
    for compressor in compressors(config, prefix):
        yield from (f"{compressor}.{name}" for name in ("ape", "norm.weight"))
    if kind == "layers" and int(layer) < number(config, "num_hash_layers"):
        yield f"{prefix}.ffn.gate.tid2eid"
    elif config.get("topk_method") == "noaux_tc":
        yield f"{prefix}.ffn.gate.bias"


def _modules(config: Mapping[str, Any], prefix: str, head: bool) -> Iterator[str]:
    """Yield the linear modules outside of the routed experts."""
    yield from (f"{prefix}.attn.{name}" for name in ATTENTION)
    for compressor in compressors(config, prefix):
        yield from (f"{compressor}.{name}" for name in ("wkv", "wgate"))
        if compressor.endswith("indexer.compressor"):
            yield from (f"{prefix}.attn.indexer.{name}" for name in ("wq_b", "weights_proj"))
    if config.get("n_shared_experts"):
        yield from (f"{prefix}.ffn.shared_experts.{name}" for name in PROJECTIONS)
    if head:
        yield from (f"{prefix}.{name}" for name in ("e_proj", "h_proj"))


def _missing_of(checkpoint: Checkpoint, module: str) -> Iterator[str]:
    """Yield the weight of a module, or the scale of a quantized one."""
    tensors = checkpoint.tensors
    if f"{module}.weight_packed" not in tensors and f"{module}.weight" not in tensors:
        yield f"{module}.weight"
    quantized = f"{module}.weight_packed" in tensors or checkpoint.dtype(f"{module}.weight") in ("F8_E4M3", "I8", "U8")
    if quantized and not any(f"{module}.{scale}" in tensors for scale in SCALES):
        yield f"{module}.weight_scale"
