"""DeepSeek-V4 checkpoints with a known answer, in the layouts that are published.

    answer = write(Path("checkpoint"), layout="w4a16", dims=FLASH)
    answer.continuation(prompt_ids[-1], 48)  # what greedy decoding must produce

`mtp` makes the negative cases: "removed" (no draft tensor at all), "holed" (one draft weight missing), "scrambled"
(every draft weight shuffled in place). The draft head is one MTP layer, or DSpark's three layers and heads.
`python -m dsv4_serve.demo.deepseek_v4 DIR --layout native --flash` writes one.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .tokenizer import write_text_files
from .v4_dspark import DraftLayer, DSparkWeights
from .v4_layouts import LAYOUTS, Layout, Storage, config
from .v4_reach import ReachWeights
from .v4_tensors import Encoder, Linear, Tensor, bf16, f32, save
from .v4_text import Walk, byte_walk
from .v4_weights import FLASH, HC, HEAD_DIM, TINY, Dims, Weights, compressed_rows

__all__ = ["FLASH", "LAYOUTS", "MTP", "TINY", "Answer", "Dims", "save_shards", "write"]

MTP = ("good", "removed", "holed", "scrambled")
NOISE = -12
"""The shared expert's, as a power of two; noise that reaches the residual stream grows with the widths."""
HOLES = {"mtp": "mtp.0.attn.wo_b.", "dspark": "mtp.1.attn.wo_b."}
Tensors = dict[str, Tensor]
LayerWeights = Weights | DraftLayer


@dataclass(frozen=True)
class Answer:
    """`perm[t]` is the token that greedy decoding puts after token t; tokens 0 and 1 are BOS and EOS."""

    perm: list[int]

    def continuation(self, token: int, count: int) -> list[int]:
        """Return the `count` tokens that greedy decoding puts after `token`."""
        out = []
        for _ in range(count):
            token = self.perm[token]
            out.append(token)
        return out


class _Builder:
    def __init__(self, layout: Layout, weights: Weights) -> None:
        self.layout, self.w, self.d = layout, weights, weights.dims
        self._encoded: dict[tuple[int, Encoder], tuple[Linear, Tensors]] = {}
        self._keep: dict[str, Linear] = {}
        self._shared: Linear | None = None

    def encode(self, prefix: str, linear: Linear, encoder: Encoder) -> Tensors:
        """Encode once per weight and format; the many equal experts and layers then share the bytes.

        The weight is kept beside its bytes, because Python gives the id of a freed object to the next one.
        """
        key = (id(linear), encoder)
        if key not in self._encoded:
            self._encoded[key] = linear, encoder(linear)
        return {f"{prefix}.{suffix}": tensor for suffix, tensor in self._encoded[key][1].items()}

    def noise(self, rows: int, cols: int, exp: int) -> Linear:
        return self._keep.setdefault(f"{rows}x{cols}^{exp}", self.w.noise(rows, cols, exp, len(self._keep)))

    def target(self) -> Tensors:
        out = {"embed.weight": bf16(self.w.embed), "head.weight": self.head(), "norm.weight": _ones(self.d.hidden)}
        out |= _hyper("", "head", self.d.hidden, HC, 1)
        for number, ratio in enumerate(self.d.ratios):
            out |= self.block(f"layers.{number}", self.layout.target, ratio, hashed=number < self.d.hash_layers)
        return out

    def head(self) -> Tensor:
        return f32(self.w.head) if self.layout.head_f32 else bf16(self.w.head)

    def draft(self) -> Tensors:
        return self.dspark(DSparkWeights(self.w)) if self.layout.drafter == "dspark" else self.mtp()

    def mtp(self) -> Tensors:
        out = self.block("mtp.0", self.layout.draft, 0, hashed=False)
        out |= self.encode("mtp.0.e_proj", self.w.e_proj, self.layout.draft.projections)
        out |= self.encode("mtp.0.h_proj", self.w.h_proj, self.layout.draft.projections)
        out |= {f"mtp.0.{name}.weight": _ones(self.d.hidden) for name in ("enorm", "hnorm", "norm")}
        out |= _hyper("mtp.0.", "head", self.d.hidden, HC, 1)
        if self.layout.aliases:
            out |= {"mtp.0.head.weight": self.head(), "mtp.0.emb.tok_emb.weight": bf16(self.w.embed)}
        return out

    def dspark(self, drafter: DSparkWeights) -> Tensors:
        out = self.encode("mtp.0.main_proj", drafter.main_proj, self.layout.draft.projections)
        out["mtp.0.main_norm.weight"] = _ones(self.d.hidden)
        for number, layer in enumerate(drafter.layers):
            out |= self.block(f"mtp.{number}", self.layout.draft, 0, hashed=False, weights=layer)
        last = f"mtp.{len(drafter.layers) - 1}"
        out |= {f"{last}.norm.weight": _ones(self.d.hidden)} | _hyper(f"{last}.", "head", self.d.hidden, HC, 1)
        out[f"{last}.markov_head.markov_w1.weight"] = bf16(drafter.markov_w1)
        out[f"{last}.markov_head.markov_w2.weight"] = bf16(drafter.markov_w2)
        return out | {f"{last}.confidence_head.proj.weight": bf16(drafter.confidence)}

    def block(
        self, prefix: str, storage: Storage, ratio: int, *, hashed: bool, weights: LayerWeights | None = None
    ) -> Tensors:
        weights = weights or self.w
        out = {f"{prefix}.{norm}.weight": _ones(self.d.hidden) for norm in ("attn_norm", "ffn_norm")}
        for part in ("attn", "ffn"):
            out |= _hyper(f"{prefix}.", part, self.d.hidden, (2 + HC) * HC, 3)
        out |= self.attention(f"{prefix}.attn", storage, weights)
        if ratio:
            out |= self.compressor(f"{prefix}.attn.compressor", storage, ratio, HEAD_DIM)
        if ratio == 4:
            out |= self.indexer(f"{prefix}.attn.indexer", storage)
        return out | self.experts(f"{prefix}.ffn", storage, weights) | self.router(f"{prefix}.ffn.gate", hashed=hashed)

    def attention(self, prefix: str, storage: Storage, weights: LayerWeights) -> Tensors:
        out = {f"{prefix}.q_norm.weight": _ones(self.d.q_lora), f"{prefix}.kv_norm.weight": _ones(HEAD_DIM)}
        out[f"{prefix}.attn_sink"] = f32(np.zeros(self.d.heads))
        for name in ("wq_a", "wq_b", "wkv", "wo_a", "wo_b"):
            out |= self.encode(f"{prefix}.{name}", getattr(weights, name), storage.attention)
        return out

    def compressor(self, prefix: str, storage: Storage, ratio: int, head_dim: int) -> Tensors:
        rows = compressed_rows(ratio, head_dim)
        out = {f"{prefix}.ape": f32(np.zeros((ratio, rows))), f"{prefix}.norm.weight": _ones(head_dim)}
        wkv = self.w.compressor(ratio, head_dim) or self.noise(rows, self.d.hidden, -7)
        gate = self.noise(rows, self.d.hidden, self.w.gate_noise)
        for name, linear in (("wkv", wkv), ("wgate", gate)):
            out |= self.encode(f"{prefix}.{name}", linear, storage.compressor)
        return out

    def indexer(self, prefix: str, storage: Storage) -> Tensors:
        d = self.d
        query = self.w.index_query or self.noise(d.index_heads * 128, d.q_lora, -7)
        weights = self.w.index_weights or self.noise(d.index_heads, d.hidden, -7)
        out = self.encode(f"{prefix}.wq_b", query, storage.indexer_q)
        out |= self.encode(f"{prefix}.weights_proj", weights, storage.compressor)
        return out | self.compressor(f"{prefix}.compressor", storage, 4, 128)

    def experts(self, prefix: str, storage: Storage, weights: LayerWeights) -> Tensors:
        """All routed experts are equal; the shared one adds noise that does not matter if it is loaded correctly."""
        out: Tensors = {}
        for expert in range(self.d.experts):
            for name, linear in (("w1", weights.expert_in), ("w3", weights.expert_in), ("w2", weights.expert_out)):
                out |= self.encode(f"{prefix}.experts.{expert}.{name}", linear, storage.experts)
        for name in ("w1", "w3"):
            out |= self.encode(
                f"{prefix}.shared_experts.{name}", self.noise(self.d.inter, self.d.hidden, -7), storage.shared
            )
        self._shared = self._shared or self.w.undisturbed(self.noise(self.d.hidden, self.d.inter, NOISE))
        return out | self.encode(f"{prefix}.shared_experts.w2", self._shared, storage.shared)

    def router(self, prefix: str, *, hashed: bool) -> Tensors:
        rng = np.random.default_rng((self.w.seed, len(prefix)))
        out = {f"{prefix}.weight": bf16(rng.normal(0, 0.02, (self.d.experts, self.d.hidden)))}
        if not hashed:
            return out | {f"{prefix}.bias": f32(np.zeros(self.d.experts))}
        table = rng.permuted(np.tile(np.arange(self.d.experts), (self.d.vocab, 1)), axis=1)[:, : self.d.top_k]
        return out | {f"{prefix}.tid2eid": Tensor("I64", table.shape, np.ascontiguousarray(table))}


def _ones(size: int) -> Tensor:
    return bf16(np.ones(size))


def _hyper(prefix: str, part: str, hidden: int, rows: int, scales: int) -> Tensors:
    """Hyper-connection weights of zero: the four residual streams stay equal."""
    name = f"{prefix}hc_{part}"
    return {
        f"{name}_fn": f32(np.zeros((rows, HC * hidden))),
        f"{name}_base": f32(np.zeros(rows)),
        f"{name}_scale": f32(np.ones(scales)),
    }


def _scrambled(tensors: Tensors, seed: int) -> Tensors:
    """Shuffle the elements of every quantizable weight; scales, norms and names stay."""
    rng, done = np.random.default_rng(seed), dict[int, Tensor]()
    out = dict(tensors)
    for name, tensor in tensors.items():
        if len(tensor.shape) == 2 and (
            name.endswith("weight_packed") or ".experts." in name or "_proj." in name or ".w" in name
        ):
            if "scale" in name.rsplit(".", 1)[1]:
                continue
            if id(tensor) not in done:
                done[id(tensor)] = Tensor(tensor.dtype, tensor.shape, rng.permutation(tensor.data.reshape(-1)))
            out[name] = done[id(tensor)]
    return out


def write(
    path: Path | str,
    layout: str = "bf16",
    dims: Dims = TINY,
    mtp: str = "good",
    walk: Walk | None = None,
) -> Answer:
    """Write a checkpoint directory (config, tokenizer, two shards and their index) and return its answer.

    `walk` is through as many tokens as `dims.vocab`; without one, the tokens are bytes, in an order by lot.

    Raises:
        ValueError: an unknown layout or `mtp`, or dimensions that the construction cannot use.
    """
    if layout not in LAYOUTS or mtp not in MTP:
        raise ValueError(f"layout {layout!r}, mtp {mtp!r}: known are {', '.join(LAYOUTS)} and {', '.join(MTP)}")
    directory = Path(path)
    walk = walk or byte_walk(dims.vocab)
    answer = Answer(walk.successors)
    sizes = dims, answer.perm, walk.seed
    weights = ReachWeights(*sizes, walk.reach) if walk.reach else Weights(*sizes)
    builder = _Builder(LAYOUTS[layout], weights)
    draft = {} if mtp == "removed" else builder.draft()
    if mtp == "holed":
        hole = HOLES[builder.layout.drafter]
        draft = {name: tensor for name, tensor in draft.items() if not name.startswith(hole)}
    if mtp == "scrambled":
        draft = _scrambled(draft, walk.seed)
    directory.mkdir(parents=True, exist_ok=True)
    save_shards(
        directory, {"model-00001-of-00002.safetensors": builder.target(), "model-00002-of-00002.safetensors": draft}
    )
    (directory / "config.json").write_text(json.dumps(config(layout, dims), indent=2))
    write_text_files(directory, walk.vocabulary, walk.marks, dims.max_positions)
    return answer


def save_shards(directory: Path, shards: dict[str, Tensors]) -> None:
    """Write safetensors files and the index that names them."""
    shards = {file: tensors for file, tensors in shards.items() if tensors}
    for file, tensors in shards.items():
        save(directory / file, tensors)
    index = {
        "metadata": {"total_size": sum(t.nbytes for tensors in shards.values() for t in tensors.values())},
        "weight_map": {name: file for file, tensors in shards.items() for name in tensors},
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a DeepSeek-V4 checkpoint with a known answer.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="bf16")
    parser.add_argument("--mtp", choices=MTP, default="good")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flash", action="store_true", help="DeepSeek-V4-Flash's widths instead of tiny ones")
    options = parser.parse_args()
    dims = FLASH if options.flash else TINY
    write(options.directory, options.layout, dims, options.mtp, byte_walk(dims.vocab, options.seed))
