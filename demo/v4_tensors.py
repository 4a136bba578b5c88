"""Exact weights and their encodings for constructed DeepSeek-V4 checkpoints.

A weight is small integer levels times a power of two per group of 16 inputs. BF16, FP8 (e4m3), INT4, MXFP4 and NVFP4
all hold it without rounding, so every layout carries the same model and a wrong scale shows as a wrong answer.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GROUP = 16
EMPTY = -100
WIDTH = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "U8": 1, "I8": 1, "I32": 4, "I64": 8}
_MAGNITUDES = (1, 2, 3, 4, 6)
E4M3 = {0: 0x00} | {
    sign * m: code | (0x80 if sign < 0 else 0)
    for m, code in zip(_MAGNITUDES, (0x38, 0x40, 0x44, 0x48, 0x4C), strict=True)
    for sign in (1, -1)
}
E2M1 = {0: 0b0000} | {
    sign * m: code | (0b1000 if sign < 0 else 0)
    for m, code in zip(_MAGNITUDES, (0b0010, 0b0100, 0b0101, 0b0110, 0b0111), strict=True)
    for sign in (1, -1)
}

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tensor:
    """One safetensors entry: `dtype` is the format's own name, `data` any array of exactly its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.generic]

    def __post_init__(self) -> None:
        if self.data.nbytes != self.nbytes:
            raise ValueError(f"{self.dtype} {self.shape} needs {self.nbytes} bytes, got {self.data.nbytes}")

    @property
    def nbytes(self) -> int:
        """Size in the file, in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * WIDTH[self.dtype]


@dataclass(frozen=True)
class Linear:
    """`levels` in {0, ±1, ±2, ±3, ±4, ±6} [out, in]; `exps` [out, in/16], the power of two of each group."""

    levels: NDArray[np.int8]
    exps: NDArray[np.int8]

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs, inputs."""
        rows, cols = self.levels.shape
        return rows, cols


Encoder = Callable[[Linear], dict[str, Tensor]]


def zeros(rows: int, cols: int) -> Linear:
    """Return an empty weight, to be filled by `put`."""
    return Linear(np.zeros((rows, cols), np.int8), np.full((rows, cols // GROUP), EMPTY, np.int8))


def put(linear: Linear, rows: Ints, cols: Ints, level: int, exp: int) -> None:
    """Set level * 2**exp at every (row, col).

    Raises:
        ValueError: a group would need two scales.
    """
    had = linear.exps[rows, cols // GROUP]
    if np.any((had != EMPTY) & (had != exp)):
        raise ValueError("two scales in one group of 16: the dimensions are too small for this construction")
    linear.levels[rows, cols] = level
    linear.exps[rows, cols // GROUP] = exp


def noise(rows: int, cols: int, exp: int, rng: np.random.Generator) -> Linear:
    """Return random signs times 2**exp."""
    signs = rng.integers(0, 2, (rows, cols), np.int8) * 2 - 1
    return Linear(signs.astype(np.int8), np.full((rows, cols // GROUP), exp, np.int8))


def bf16(values: NDArray[np.floating]) -> Tensor:
    """Truncate to bfloat16: exact for the constructed weights, toward zero for anything else."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16
    return Tensor("BF16", values.shape, bits.astype(np.uint16))


def f32(values: NDArray[np.floating]) -> Tensor:
    """Store as float32."""
    return Tensor("F32", values.shape, np.ascontiguousarray(values, np.float32))


def dense(linear: Linear) -> NDArray[np.float32]:
    """Return the weight's numbers."""
    scale = np.where(linear.exps == EMPTY, 0.0, np.exp2(linear.exps.astype(np.float32)))
    return linear.levels.astype(np.float32) * np.repeat(scale.astype(np.float32), GROUP, axis=1)


def block_exps(linear: Linear, rows: int, cols: int) -> NDArray[np.int16]:
    """The power of two of every rows x cols block; blocks of zeros get the largest one in use.

    Raises:
        ValueError: a block would need two scales.
    """
    exps = linear.exps.astype(np.int16)
    high, low = (
        _reduce(np.where(exps == EMPTY, fill, exps), rows, cols // GROUP, pick, fill)
        for fill, pick in ((EMPTY, np.max), (-EMPTY, np.min))
    )
    if np.any((high != EMPTY) & (high != low)):
        raise ValueError(f"two scales in one {rows}x{cols} block: the dimensions are too small for this format")
    top = high.max()
    return np.where(high == EMPTY, top if top != EMPTY else 0, high).astype(np.int16)


def _reduce(
    values: NDArray[np.int16], rows: int, cols: int, pick: Callable[..., NDArray[np.int16]], fill: int
) -> NDArray[np.int16]:
    pad = (-values.shape[0] % rows, -values.shape[1] % cols)
    full = np.pad(values, ((0, pad[0]), (0, pad[1])), constant_values=fill)
    return pick(full.reshape(full.shape[0] // rows, rows, full.shape[1] // cols, cols), axis=(1, 3))


def _lookup(linear: Linear, codes: Mapping[int, int]) -> Bytes:
    table = np.zeros(256, np.uint8)
    for level, code in codes.items():
        table[level % 256] = code
    return table[linear.levels.view(np.uint8)]


def _nibbles(linear: Linear) -> Bytes:
    codes = _lookup(linear, E2M1)
    return codes[:, ::2] | (codes[:, 1::2] << np.uint8(4))


def encode_bf16(linear: Linear) -> dict[str, Tensor]:
    """Unquantized."""
    return {"weight": bf16(dense(linear))}


def encode_fp8(linear: Linear) -> dict[str, Tensor]:
    """DeepSeek's own FP8: E8M0 scales per 128x128 block, named `.scale`."""
    exps = block_exps(linear, 128, 128)
    return {
        "weight": Tensor("F8_E4M3", linear.shape, _lookup(linear, E4M3)),
        "scale": Tensor("F8_E8M0", exps.shape, (exps + 127).astype(np.uint8)),
    }


def encode_fp8_bf16_scale(linear: Linear) -> dict[str, Tensor]:
    """compressed-tensors FP8: BF16 scales per 128x128 block, named `.weight_scale`."""
    scale = bf16(np.exp2(block_exps(linear, 128, 128).astype(np.float32)))
    return {"weight": Tensor("F8_E4M3", linear.shape, _lookup(linear, E4M3)), "weight_scale": scale}


def encode_int4(linear: Linear) -> dict[str, Tensor]:
    """compressed-tensors pack-quantized, symmetric, group 128: eight offset-8 nibbles per int32."""
    rows, cols = linear.shape
    nibbles = (linear.levels.astype(np.int16) + 8).astype(np.uint32).reshape(rows, cols // 8, 8)
    packed = np.bitwise_or.reduce(nibbles << (4 * np.arange(8, dtype=np.uint32)), axis=2).astype(np.uint32)
    return {
        "weight_packed": Tensor("I32", packed.shape, packed),
        "weight_scale": bf16(np.exp2(block_exps(linear, 1, 128).astype(np.float32))),
        "weight_shape": Tensor("I64", (2,), np.array([rows, cols], np.int64)),
    }


def encode_mxfp4(linear: Linear) -> dict[str, Tensor]:
    """DeepSeek's own FP4 (e2m1): E8M0 scales per 32 inputs, named `.scale`; the even input is the low nibble."""
    packed = _nibbles(linear)
    exps = block_exps(linear, 1, 32)
    return {
        "weight": Tensor("I8", packed.shape, packed),
        "scale": Tensor("F8_E8M0", exps.shape, (exps + 127).astype(np.uint8)),
    }


def _e4m3_scales(linear: Linear) -> tuple[Tensor, int]:
    """Per-16 scales as e4m3 powers of two with the largest at 2**4, and the exponent taken out of all of them."""
    exps = block_exps(linear, 1, 16)
    shift = int(exps.max()) - 4
    return Tensor("F8_E4M3", exps.shape, ((exps - shift + 7) << 3).astype(np.uint8)), shift


def encode_nvfp4(linear: Linear) -> dict[str, Tensor]:
    """compressed-tensors NVFP4: the global scales are divisors."""
    scales, shift = _e4m3_scales(linear)
    packed = _nibbles(linear)
    return {
        "weight_packed": Tensor("U8", packed.shape, packed),
        "weight_scale": scales,
        "weight_global_scale": f32(np.array(2.0**-shift)),
        "input_global_scale": f32(np.array(32.0)),
    }


def encode_nvfp4_modelopt(linear: Linear) -> dict[str, Tensor]:
    """ModelOpt NVFP4: the global scales are factors."""
    scales, shift = _e4m3_scales(linear)
    packed = _nibbles(linear)
    return {
        "weight": Tensor("U8", packed.shape, packed),
        "weight_scale": scales,
        "weight_scale_2": f32(np.array([2.0**shift])),
        "input_scale": f32(np.array([1.0])),
    }


def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; tensors may share memory, each is written out in full."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            np.ascontiguousarray(tensor.data).tofile(file)
