"""The products of weights that the experts of DeepSeek-V4 consist of, what they read, and routes to them. Without Humming."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

EXPERTS, TOP_K, HIDDEN, INTERMEDIATE = 256, 6, 4096, 2048
"""DeepSeek-V4-Flash."""
GROUPS, TOKEN = "mxfp4-fp8", "mxfp4-fp8token"
FORMATS = (GROUPS, "int4", "mxfp4", TOKEN)
"""
MXFP4 weights with FP8 inputs in groups of 128, INT4 weights in groups of 128 and MXFP4 ones with BF16 inputs.

Last, MXFP4 weights with FP8 inputs that have one scale for each token, which no plan has.
"""
USUAL = FORMATS[:3]
"""Those that are measured where no layer is named."""
SUBLAYERS = ("w13", "w2")
SCALE_BITS = {GROUPS: 8 / 32, TOKEN: 8 / 32, "mxfp4": 8 / 32, "int4": 16 / 128}
"""Bits of scales for each weight of four bits."""
PEAK = 4.36e12
"""Bytes a second that an H200 copies at most (qualification/gpu/copy_bandwidth.py, 2026-11-29)."""
PEAK_PRODUCTS = {GROUPS: 1979e12, TOKEN: 1979e12, "mxfp4": 989e12, "int4": 989e12}
"""Products and sums a second of an H200's tensor cores, dense, by its data sheet: inputs in FP8, and in BF16."""


@dataclass(frozen=True)
class Layer:
    """Experts' weights that one GPU of `ways` holds in one format: gate and up (`w13`) or down (`w2`)."""

    format: str
    sublayer: str
    ways: int

    def __post_init__(self) -> None:
        if self.format not in FORMATS or self.sublayer not in SUBLAYERS or INTERMEDIATE % self.ways:
            raise ValueError(f"no such layer: {self}")

    @classmethod
    def parse(cls, name: str) -> Layer:
        """Return the layer of a name such as `mxfp4,w13,2`."""
        form, sublayer, ways = name.split(",")
        return cls(form, sublayer, int(ways))

    def __str__(self) -> str:
        return f"{self.format},{self.sublayer},{self.ways}"

    @property
    def fp8(self) -> bool:
        """Whether inputs are FP8; others are BF16."""
        return self.format in {GROUPS, TOKEN}

    @property
    def groups(self) -> bool:
        """Whether each group of 128 inputs has a scale, so that the sums of a group are scaled before they are added."""
        return self.format == GROUPS

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of one expert."""
        part = INTERMEDIATE // self.ways
        return (2 * part, HIDDEN) if self.sublayer == "w13" else (HIDDEN, part)

    @property
    def top_k(self) -> int:
        """How many rows of output each row of input has: `w2` reads a row for every expert of a token."""
        return TOP_K if self.sublayer == "w13" else 1

    @property
    def expert_bytes(self) -> float:
        """Bytes of one expert's weights with their scales."""
        n, k = self.shape
        return n * k * (4 + SCALE_BITS[self.format]) / 8

    def products(self, tokens: int) -> float:
        """Return the products and sums of a step, two for each weight that a row meets."""
        return 2.0 * tokens * TOP_K * math.prod(self.shape)

    def bytes_moved(self, route: torch.Tensor) -> float:
        """Return the bytes that a step has to move at least: weights of every expert that a token goes to, inputs, outputs."""
        n, k = self.shape
        rows = route.numel()
        scales = k // 128 if self.groups else int(self.fp8)
        inputs = rows // self.top_k * (k * (1 if self.fp8 else 2) + 4 * scales)
        return route.unique().numel() * self.expert_bytes + inputs + rows * n * 2


def routes(tokens: int, count: int, seed: int) -> torch.Tensor:
    """Return the experts of each token, `count` times: uniformly at random, none twice for a token."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand((count, tokens, EXPERTS), generator=generator)
    return scores.topk(TOP_K, dim=2).indices.to(torch.int32)


def mean_bytes(layer: Layer, found: Sequence[torch.Tensor]) -> float:
    """Return the bytes of a step on average over routes."""
    return sum(layer.bytes_moved(route) for route in found) / len(found)
