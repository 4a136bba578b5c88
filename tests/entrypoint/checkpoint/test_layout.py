"""The names that a config.json promises are as many as the published checkpoints have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.checkpoint import layout
from dsv4_serve.entrypoint.checkpoint.read import Checkpoint, Document
from dsv4_serve.entrypoint.checkpoint.safetensors import Shard
from dsv4_serve.entrypoint.doctor.checkpoint_requirements import CheckpointRequirements
from dsv4_serve.entrypoint.doctor.checks import config as config_checks
from dsv4_serve.entrypoint.doctor.checks.checkpoint import examine

FLASH = {
    "num_hidden_layers": 43,
    "num_hash_layers": 3,
    "num_nextn_predict_layers": 1,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "topk_method": "noaux_tc",
    "compress_ratios": [0, 0, *([4, 128] * 20), 4, 0],
}


def holding(config: dict[str, Any], dtypes: dict[str, str] | None = None) -> Checkpoint:
    tensors = {name: {"dtype": dtype, "shape": [], "data_offsets": [0, 0]} for name, dtype in (dtypes or {}).items()}
    shards = {"a.safetensors": Shard("a.safetensors", 0, 0, tensors)}
    return Checkpoint(Path(), frozenset(), Document(config), Document({}, absent=True), shards)


def test_a_bf16_draft_head_of_flash_has_797_tensors() -> None:
    """797 to 799 keys in canada-quant's W4A16 and NVFP4: two are optional aliases of embedding and head."""
    assert len(list(layout.missing(holding(FLASH), "mtp.0"))) == 797


def test_a_native_draft_head_of_pro_has_2343_tensors() -> None:
    """2,343 in canada-quant's V4-Pro: MXFP4 experts and FP8 projections, each weight with its scale."""
    pro = {**FLASH, "num_hidden_layers": 61, "n_routed_experts": 384}
    names = [f"attn.{name}" for name in layout.ATTENTION] + ["e_proj", "h_proj"]
    names += [f"ffn.shared_experts.{name}" for name in layout.PROJECTIONS]
    weights = {f"mtp.0.{name}.weight": "F8_E4M3" for name in names} | {"mtp.0.ffn.experts.0.w1.weight": "I8"}
    absent = list(layout.missing(holding(pro, weights), "mtp.0"))
    assert len(absent) + len(weights) == 2343


def test_the_target_model_of_flash_has_33024_quantized_projections_and_62_compressors() -> None:
    empty = holding(FLASH)
    names = [name for prefix in layout.target_layers(FLASH) for name in layout.missing(empty, prefix)]
    assert sum(".ffn.experts." in name for name in names) == 33_024
    assert sum(len(layout.compressors(FLASH, prefix)) for prefix in layout.target_layers(FLASH)) == 21 * 2 + 20
    assert sum(name.endswith(".tid2eid") for name in names) == 3
    assert len(names) == len(set(names))


def test_a_config_of_nonsense_promises_nothing() -> None:
    for value in (None, "x", -1, True, 10**12, [], {}):
        config = dict.fromkeys(FLASH, value)
        assert layout.target_layers(config) == layout.draft_layers(config) == []
        assert layout.compressors(config, "layers.0") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
)
SMALL = st.integers(0, 20)


@given(
    st.dictionaries(
        st.sampled_from([*config_checks.FIELDS, *FLASH, "quantization_config", "rope_scaling", "layer_types"]),
        JSON | SMALL,
    )
)
def test_no_config_makes_a_check_fail(config: dict[str, Any]) -> None:
    some = holding({**config, "model_type": "deepseek_v4"}, {"embed.weight": "BF16", "mtp.0.norm.weight": "BF16"})
    served = CheckpointRequirements(
        "flash",
        "deepseek-v4-flash",
        "fp8-mxfp4",
        "fp8-mxfp4",
        "h200",
        2,
        method="mtp",
        draft_tokens=1,
        patches=frozenset(),
    )
    assert dict(examine(some, served))
