"""A folder of weights names its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.checkpoint import identify
from dsv4_serve.entrypoint.errors import ConfigError

V4: dict[str, Any] = {"architectures": ["DeepseekV4ForCausalLM"], "hidden_size": 4096, "num_nextn_predict_layers": 1}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
INT4 = {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int"}}}}
FP4 = {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "type": "float"}}}}
BF16_DRAFT = {"weight_map": {"mtp.0.ffn.experts.0.w1.weight": "a.safetensors"}}
QUANTIZED_DRAFT = {"weight_map": {"mtp.0.ffn.experts.0.w1.weight_packed": "a.safetensors"}}


def checkpoint(folder: Path, config: dict[str, Any], index: dict[str, Any] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def served(folder: Path) -> str:
    model = identify.match(identify.identity_of(folder, "MODEL"), Catalog([]).every_model())
    return model.name if model else ""


@pytest.mark.parametrize(
    ("config", "index", "name"),
    [
        (V4 | {"quantization_config": FP8}, None, "flash"),
        (V4 | {"quantization_config": INT4}, BF16_DRAFT, "w4a16"),
        (V4 | {"quantization_config": INT4}, QUANTIZED_DRAFT, "acti"),
        (V4 | {"quantization_config": FP4}, None, "nvfp4"),
        (
            V4 | {"hidden_size": 7168, "quantization_config": FP8 | {"moe_quant_algo": "NVFP4"}},
            None,
            "pro-nvfp4",
        ),
        ({"architectures": ["LlamaForCausalLM"]}, None, "demo"),
    ],
)
def test_a_layout_is_recognised_from_config_and_index(
    tmp_path: Path, config: dict[str, Any], index: dict[str, Any] | None, name: str
) -> None:
    folder = checkpoint(tmp_path, config, index)
    assert served(folder) == name


def test_without_an_index_the_header_of_the_file_is_read(tmp_path: Path) -> None:
    checkpoint(tmp_path, V4 | {"quantization_config": INT4})
    entry = {"dtype": "I32", "shape": [1, 1], "data_offsets": [0, 4]}
    header = json.dumps(dict.fromkeys(QUANTIZED_DRAFT["weight_map"], entry)).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert served(tmp_path) == "acti"


def test_a_shard_that_is_a_link_to_nowhere_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "model-00001.safetensors").symlink_to("/no/such/blob")
    (tmp_path / "model-00002.safetensors").write_bytes(b"12345678")
    assert identify.weights_bytes(tmp_path) == 8


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model.safetensors"])
def test_unreadable_tensor_names_are_reported_in_one_sentence(tmp_path: Path, name: str) -> None:
    (checkpoint(tmp_path, V4 | {"quantization_config": INT4}) / name).mkdir()
    with pytest.raises(ConfigError, match=f"^MODEL: cannot read {tmp_path / name} .Is a directory."):
        identify.identity_of(tmp_path, "MODEL")


def test_a_dspark_drafter_is_seen(tmp_path: Path) -> None:
    config = V4 | {"quantization_config": FP8, "dspark_block_size": 5}
    assert identify.identity_of(checkpoint(tmp_path, config), "MODEL").drafter.kind == "dspark"


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b"\xff"])
def test_a_config_that_is_no_object_is_reported_in_one_sentence(tmp_path: Path, config: bytes) -> None:
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(ConfigError):
        identify.identity_of(tmp_path, "MODEL")


def test_a_folder_without_a_config_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        identify.identity_of(tmp_path, "MODEL")


def test_an_unknown_architecture_is_no_model(tmp_path: Path) -> None:
    assert served(checkpoint(tmp_path, {"architectures": ["Other"], "hidden_size": {}})) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architectures": 3}, "architectures = 3"),
        ({"architectures": None}, "no architectures"),
        ({"model_type": "deepseek_v41"}, 'model_type = "deepseek_v41"'),
        ({"text_config": {}}, "no hidden_size"),
        ({"quantization_config": {"quant_method": "FP8"}}, 'quant_method = "FP8"'),
        ({"quantization_config": FP8 | {"moe_quant_algo": ["NVFP4"]}}, 'moe_quant_algo = ["NVFP4"]'),
        ({"architectures": ["DeepseekV41ForCausalLM"], "text_config": []}, "text_config = []"),
        ({"quantization_config": ["fp8"]}, 'quantization_config = ["fp8"]'),
        ({"quantization_config": "fp8"}, 'quantization_config = "fp8"'),
        ({"quantization_config": {"bits": 4}}, "no quant_method in quantization_config"),
        ({"quantization_config": {"quant_method": ["fp8"]}}, 'quant_method = ["fp8"]'),
        ({"quantization_config": INT4 | {"config_groups": [1]}}, "config_groups = [1]"),
        ({"quantization_config": FP8, "expert_dtype": None}, "expert_dtype = null"),
        ({"quantization_config": {"quant_method": "fp8"}}, "activation_scheme = null, weight_block_size = null"),
        ({"quantization_config": FP8 | {"weight_block_size": [128, "128"]}}, 'weight_block_size = [128, "128"]'),
        ({"num_hidden_layers": None, "hc_eps": "x"}, 'num_hidden_layers = null, hc_eps = "x"'),
        ({"num_hidden_layers": True}, "num_hidden_layers = true"),
        ({"n_routed_experts": -1}, "n_routed_experts = -1"),
        ({"hidden_size": 10**30}, "hidden_size = 1000"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = NaN"),
    ],
)
def test_a_field_that_vllm_cannot_use_is_named_and_no_model(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=r"^MODEL: .*config\.json is damaged: .*original config\.json\.$") as caught:
        identify.identity_of(checkpoint(tmp_path, V4 | changes), "MODEL")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": None},
        {"n_shared_experts": None, "num_hash_layers": 0, "swiglu_limit": None},
        {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": "x"},
        {"quantization_config": FP8},
    ],
)
def test_what_vllm_takes_is_not_called_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert identify.identity_of(checkpoint(tmp_path, V4 | changes), "MODEL")


@pytest.mark.parametrize("there", [b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", None])
def test_a_shard_that_is_not_whole_counts_as_the_index_says(tmp_path: Path, there: bytes | None) -> None:
    shards = {"a": "a.safetensors", "b": "b.safetensors"}
    checkpoint(tmp_path, V4, {"metadata": {"total_size": 5 << 30}, "weight_map": shards})
    (tmp_path / "a.safetensors").write_bytes(bytes(8192))
    if there:
        (tmp_path / "b.safetensors").write_bytes(there)
    assert identify.identity_of(tmp_path, "MODEL").bytes == 5 << 30
    (tmp_path / "b.safetensors").write_bytes(bytes(4096))
    assert identify.identity_of(tmp_path, "MODEL").bytes == 8192 + 4096


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        (V4 | {"moe_intermediate_size": 2048}, 2048),
        (V4, V4.get("moe_intermediate_size", 0)),
        ({"architectures": ["Other"], "text_config": {"moe_intermediate_size": 2304}}, 2304),
        ({"architectures": ["Other"], "moe_intermediate_size": "2304"}, 0),
    ],
)
def test_the_rows_of_an_expert_are_those_of_the_language_model(
    tmp_path: Path, config: dict[str, Any], rows: int
) -> None:
    assert identify.identity_of(checkpoint(tmp_path, config), "MODEL").expert_rows == rows


@pytest.mark.parametrize(
    ("weights", "group"),
    [({"group_size": 128}, 128), ({"group_size": 32}, 32), ({}, 0), ({"group_size": -1}, 0), ({"type": "float"}, 0)],
    ids=["published", "other", "unsaid", "channel", "nvfp4"],
)
def test_the_weights_that_share_a_scale_are_told_of_int4_experts_alone(
    tmp_path: Path, weights: dict[str, Any], group: int
) -> None:
    others = {"weights": {"num_bits": 8, "type": "float", "group_size": 64}}
    ours = {"weights": {"num_bits": 4, "type": "int", "group_size": 0} | weights}
    quantization = INT4 | {"config_groups": {"a": others, "b": ours}}
    found = identify.identity_of(checkpoint(tmp_path, V4 | {"quantization_config": quantization}), "MODEL")
    assert found.expert_group_size == group


def test_checkpoints_without_int4_experts_have_no_group(tmp_path: Path) -> None:
    for quantization in (FP8, FP4, None):
        found = identify.identity_of(checkpoint(tmp_path, V4 | {"quantization_config": quantization}), "MODEL")
        assert found.expert_group_size == 0
