"""The random checkpoints: the same numbers on every machine and in every layout."""

import json

import numpy as np
import pytest

from dsv4_serve.demo.numerics import checkpoint, weights
from dsv4_serve.demo.numerics.sizes import SIZES
from dsv4_serve.demo.v4_layouts import LAYOUTS
from dsv4_serve.demo.v4_tensors import dense

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
EXPERT = weights.Matrix("layers.0.ffn.experts.5.w2", "experts", 512, 256, 0.5)
SQUARE = weights.Matrix("layers.0.attn.wkv", "attention", 512, 512)


def bf16(tensor):
    return (tensor.data.astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)


def e4m3(codes):
    codes = codes.astype(np.int32)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    value = np.where(exponent, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
    return np.where(codes & 128, -value, value)


def nibbles(packed):
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def e2m1(packed):
    codes = nibbles(packed)
    return np.where(codes & 8, -1, 1) * E2M1[codes & 7]


def spread(scale, shape):
    return scale.repeat(-(-shape[0] // scale.shape[0]), 0)[: shape[0]].repeat(shape[1] // scale.shape[1], 1)


def decoded(tensors):
    """What a loader has to make of a weight in any of the formats."""
    parts = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    if "weight_shape" in parts:
        words = parts["weight_packed"].data[:, :, None] >> (4 * np.arange(8, dtype=np.uint32)) & 15
        values, scale = words.reshape(len(words), -1).astype(float) - 8, bf16(parts["weight_scale"])
    elif "weight_packed" in parts:
        values = e2m1(parts["weight_packed"].data)
        scale = e4m3(parts["weight_scale"].data) / parts["weight_global_scale"].data.item()
    elif "weight_scale_2" in parts:
        values = e2m1(parts["weight"].data)
        scale = e4m3(parts["weight_scale"].data) * parts["weight_scale_2"].data.item()
    elif "scale" in parts:
        fp4 = parts["weight"].dtype == "I8"
        values = (e2m1 if fp4 else e4m3)(parts["weight"].data)
        scale = 2.0 ** (parts["scale"].data.astype(float) - 127)
    elif "weight_scale" in parts:
        values, scale = e4m3(parts["weight"].data), bf16(parts["weight_scale"])
    else:
        return bf16(parts["weight"])
    return values * spread(scale, values.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parameter", [EXPERT, SQUARE], ids=lambda p: p.role)
def test_every_layout_holds_the_same_numbers(layout, parameter):
    kind = LAYOUTS[layout]
    for storage in (kind.target, kind.draft):
        tensors = checkpoint.encoded([parameter], kind, storage, checkpoint.plainly)
        np.testing.assert_array_equal(decoded(tensors), dense(parameter.draw(checkpoint.SEED)))


def test_every_level_and_every_step_is_drawn():
    linear = EXPERT.draw(checkpoint.SEED)
    assert set(np.unique(linear.levels)) == {0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6}
    assert len(np.unique(linear.exps)) == 3


def test_the_scales_of_w1_and_w3_have_the_same_largest():
    d = SIZES["tiny"]
    matrices = [p for p in weights.block("layers.0", d, 0) if isinstance(p, weights.Matrix) and p.role == "experts"]
    largest = {p.draw(checkpoint.SEED).exps.max() for p in matrices if p.name.endswith((".w1", ".w3"))}
    assert len(largest) == 1


def test_yarn_begins_early(tmp_path):
    values = checkpoint.described("native", SIZES["tiny"])
    assert values["rope_scaling"]["original_max_position_embeddings"] == 256
    json.dumps(values)
