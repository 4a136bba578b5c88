"""The number formats that an engine's caches and weights hold, in float64."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
E4M3_MAX = 448.0


def bf16(values: Floats) -> Floats:
    """Round to bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def e4m3(values: Floats) -> Floats:
    """Round to FP8 with 4 bits of exponent and 3 of mantissa, ties to even; saturate."""
    _, exponent = np.frexp(values)
    step = np.exp2(np.maximum(exponent - 4, -9).astype(np.float64))
    return np.clip(np.rint(values / step) * step, -E4M3_MAX, E4M3_MAX)


def fp8(values: Floats, group: int) -> Floats:
    """Quantize to e4m3 and back, with a power of two as the scale of each `group` of the last axis."""
    return scaled(values, group, lambda largest: np.exp2(np.ceil(np.log2(np.maximum(largest, 1e-4) / E4M3_MAX))))


def scaled(values: Floats, group: int, scale_of: Callable[[Floats], Floats]) -> Floats:
    """Quantize to e4m3 and back, with the scale that belongs to the largest of each `group` of the last axis."""
    grouped = values.reshape(*values.shape[:-1], -1, group)
    scale = scale_of(np.abs(grouped).max(axis=-1, keepdims=True))
    return (e4m3(grouped / scale) * scale).reshape(values.shape)


def kv_entry(values: Floats, rope: int) -> Floats:
    """A key-value cache entry: FP8 in groups of 64, the part with positions in bfloat16."""
    return np.concatenate([fp8(values[..., :-rope], 64), bf16(values[..., -rope:])], axis=-1)
