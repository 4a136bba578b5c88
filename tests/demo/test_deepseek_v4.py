"""The constructed DeepSeek-V4: every layout holds the same numbers, and they walk the permutation."""

import json
from typing import NamedTuple

import numpy as np
import pytest

from dsv4_serve.demo.deepseek_v4 import LAYOUTS, Dims, _Builder, write
from dsv4_serve.demo.v4_tensors import dense, put, zeros
from dsv4_serve.demo.v4_weights import FLASH, Weights, permutation
from tests.support.each import each

SMALL = Dims(experts=8, vocab=64, ratios=(0, 4, 128))
MODULES = (
    "layers.0.ffn.experts.3.w1",
    "layers.0.ffn.experts.3.w2",
    "layers.0.ffn.shared_experts.w2",
    "layers.1.attn.wkv",
    "layers.1.attn.wo_a",
    "layers.1.attn.wo_b",
    "layers.1.attn.compressor.wkv",
    "layers.1.attn.indexer.wq_b",
    "mtp.0.ffn.experts.3.w2",
    "mtp.0.attn.wq_a",
    "mtp.0.e_proj",
)
TARGET = [module for module in MODULES if not module.startswith("mtp.")]
CASES = [
    (layout, module)
    for layout, stored in LAYOUTS.items()
    for module in (MODULES if stored.drafter == "mtp" else TARGET)
]
NUMPY = {
    "BF16": np.uint16, "F32": np.float32, "F8_E4M3": np.uint8, "F8_E8M0": np.uint8,
    "U8": np.uint8, "I8": np.uint8, "I32": np.uint32, "I64": np.int64,
}  # fmt: skip
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


class Stored(NamedTuple):
    dtype: str
    raw: np.ndarray


def read(file):
    """Names to what is stored; few of the thousands are ever decoded."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"}
    out = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        raw = np.frombuffer(data[8 + size + start : 8 + size + end], NUMPY[entry["dtype"]]).reshape(entry["shape"])
        out[name] = Stored(entry["dtype"], raw)
    return out


def decode(dtype, raw):
    """Numbers; packed formats stay packed."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return BYTES[dtype][raw] if dtype in BYTES else raw


def e4m3(raw):
    exponent, mantissa = raw >> 3 & 15, (raw & 7) / 8
    value = np.where(exponent > 0, (1 + mantissa) * np.exp2(exponent - 7.0), mantissa * 2.0**-6)
    return np.where(raw >> 7, -value, value)


BYTES = {"F8_E8M0": np.exp2(np.arange(256) - 127.0), "F8_E4M3": e4m3(np.arange(256))}


def nibbles(packed, count):
    return (packed[..., None] >> (4 * np.arange(count, dtype=packed.dtype)) & 15).reshape(packed.shape[0], -1)


def numbers(tensors, module):
    """The dense weight of a module, by the rules of the format that its tensors show."""
    parts = {name[len(module) + 1 :]: decode(*t) for name, t in tensors.items() if name.startswith(f"{module}.")}
    packed = parts["weight_packed" if "weight_packed" in parts else "weight"]
    scale = parts.get("weight_scale", parts.get("scale"))
    if scale is None:
        return packed
    factor = parts.get("weight_scale_2", 1 / parts.get("weight_global_scale", np.ones(1)))
    if packed.dtype == np.uint32:
        assert list(parts["weight_shape"]) == [packed.shape[0], packed.shape[1] * 8]
        levels = nibbles(packed, 8).astype(np.int64) - 8
    elif packed.dtype == np.uint8:
        levels = E2M1[nibbles(packed, 2)]
    else:
        levels = packed
    rows, cols = (-(-size // blocks) for size, blocks in zip(levels.shape, scale.shape, strict=True))
    full = np.repeat(np.repeat(scale, rows, axis=0), cols, axis=1)[: levels.shape[0], : levels.shape[1]]
    return levels * full * factor


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    tensors = {}
    for layout in LAYOUTS:
        write(folder / layout, layout, SMALL)
        tensors[layout] = {
            k: v for file in sorted((folder / layout).glob("*.safetensors")) for k, v in read(file).items()
        }
    return folder, tensors


@each("layout, module", [case for case in CASES if case[0] != "bf16"])
def test_every_layout_holds_the_same_numbers(written, layout, module):
    _, tensors = written
    expected = numbers(tensors["bf16"], module)
    assert np.abs(expected).sum() > 0
    np.testing.assert_array_equal(numbers(tensors[layout], module), expected)


def test_the_index_lists_exactly_the_tensors_of_the_shards(written):
    folder, tensors = written
    for layout in LAYOUTS:
        index = json.loads((folder / layout / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(tensors[layout])


def test_acti_stores_its_compressors_in_fp8_and_w4a16_does_not(written):
    """Six tensors per C4 layer and two per C128 layer: 166 in Flash."""
    scales = {
        layout: [n for n in written[1][layout] if (".compressor." in n or ".indexer." in n) and n.endswith("scale")]
        for layout in ("acti", "w4a16")
    }
    assert (len(scales["acti"]), len(scales["w4a16"])) == (6 + 2, 0)


@pytest.mark.parametrize(
    "dims",
    [SMALL, Dims(), pytest.param(FLASH, marks=[pytest.mark.unit, pytest.mark.slow])],
    ids=["small", "tiny", "flash"],
)
def test_target_and_draft_prefer_the_next_token_by_a_factor_of_two(dims):
    """
    In exact arithmetic the answer's logit is at least twice any other: room for every format's activations.

    Flash's sizes are tried with every fourth token: one does not depend on another.
    """
    perm = np.array(permutation(dims.vocab, 0))
    weights = Weights(dims, list(perm), 0)
    asked = np.arange(0, dims.vocab, 4 if dims is FLASH else 1)
    target = weights.embed[asked].astype(np.float64)
    names = ("wkv", "wo_a", "wo_b", "expert_in", "expert_out")
    matrices = {name: dense(getattr(weights, name)) for name in names}  # once for all layers
    for _ in dims.ratios:
        target = layer(target, dims, **matrices)
    draft = norm(target) @ dense(weights.h_proj).T + norm(weights.embed[perm[asked]]) @ dense(weights.e_proj).T
    for stream, answers in ((target, perm[asked]), (layer(draft, dims, **matrices), perm[perm[asked]])):
        logits = norm(stream) @ weights.head.T
        chosen = np.take_along_axis(logits, answers[:, None], 1)[:, 0]
        np.put_along_axis(logits, answers[:, None], -np.inf, 1)
        assert (chosen > 2 * logits.max(axis=1)).all()


def layer(x, d, *, wkv, wo_a, wo_b, expert_in, expert_out):
    attended = np.tile(norm(norm(x) @ wkv.T), d.heads // d.o_groups)
    groups = np.split(wo_a, d.o_groups)
    x = x + np.concatenate([attended @ group.T for group in groups], axis=1) @ wo_b.T
    gate = np.clip(norm(x) @ expert_in.T, -10, 10)
    return x + 1.5 * (gate / (1 + np.exp(-gate)) * gate) @ expert_out.T


def norm(x):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6)


def test_the_answer_is_one_cycle_without_the_special_tokens():
    perm = permutation(128, 0)
    walked = [2]
    while (following := perm[walked[-1]]) != 2:
        walked.append(following)
    assert sorted(walked) == list(range(2, 128))
    assert perm[:2] == [0, 1]


@pytest.mark.parametrize("layout", ["native", "flash-0731"])
@pytest.mark.parametrize(("mtp", "left"), [("removed", 0), ("holed", -2), ("scrambled", None)])
def test_negative_cases_touch_the_draft_head_alone(tmp_path, written, layout, mtp, left):
    write(tmp_path, layout, SMALL, mtp)
    good, bad = written[1][layout], {}
    for file in tmp_path.glob("*.safetensors"):
        bad |= read(file)
    drafts = [name for name in good if name.startswith("mtp.")]
    missing = set(good) - set(bad)
    assert missing <= set(drafts)
    assert len(missing) == {0: len(drafts), -2: 2, None: 0}[left]
    changed = {name for name in bad if not np.array_equal(bad[name].raw, good[name].raw)}
    assert all(name.startswith("mtp.") for name in changed)
    assert bool(changed) == (mtp == "scrambled")


def test_dspark_layouts_say_so_and_have_the_published_tensors(written):
    folder, tensors = written
    config = json.loads((folder / "flash-0731" / "config.json").read_text())
    assert (config["dspark_block_size"], config["dspark_markov_rank"], config["dspark_target_layer_ids"]) == (
        5,
        256,
        [0, 1, 2],
    )
    assert config["compress_ratios"] == [0, 4, 128, 0, 0, 0]
    drafts = {name: tensor.raw.shape for name, tensor in tensors["flash-0731"].items() if name.startswith("mtp.")}
    assert {name.split(".")[1] for name in drafts} == {"0", "1", "2"}
    assert drafts["mtp.0.main_proj.weight"] == (512, 3 * 512)
    assert drafts["mtp.2.markov_head.markov_w1.weight"] == drafts["mtp.2.markov_head.markov_w2.weight"] == (64, 256)
    assert drafts["mtp.2.confidence_head.proj.weight"] == (1, 512 + 256)


@pytest.mark.parametrize("layout", ["flash-nvfp4", "flash-0731-nvfp4"])
def test_the_layouts_of_modelopt_keep_the_drafter_as_deepseek_stored_it(written, layout):
    folder, tensors = written
    quantization = json.loads((folder / layout / "config.json").read_text())["quantization_config"]
    assert quantization["moe_quant_algo"] == "NVFP4"
    assert "mtp.*" in quantization["ignore"]
    assert list(quantization["quantized_layers"]) == [f"layers.{n}.ffn.experts" for n in range(3)]
    kinds = {name.split(".")[0] for name in tensors[layout] if name.endswith(".w1.weight_scale_2")}
    assert kinds == {"layers"}
    assert "mtp.0.ffn.experts.0.w1.scale" in tensors[layout]


def test_unknown_names_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="layout 'fp16'"):
        write(tmp_path / "x", "fp16")
    assert not (tmp_path / "x").exists()


def test_a_weight_that_is_freed_lends_its_bytes_to_no_other():
    """Python gives the id of a freed object to the next; DSpark's weights are freed before the trunk's are made."""
    builder = _Builder(LAYOUTS["bf16"], Weights(SMALL, permutation(64, 0), 0))
    encoder = LAYOUTS["bf16"].target.attention
    for row in range(32):
        linear = zeros(32, 16)
        put(linear, np.array([row]), np.array([0]), 1, 0)
        (tensor,) = builder.encode("layer", linear, encoder).values()
        assert np.flatnonzero(tensor.data) == [row * 16]
        del linear, tensor
