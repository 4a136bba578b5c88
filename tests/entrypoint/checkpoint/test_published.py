"""Every layout that is published is recognised by its files, and every other quantization by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.checkpoint import described, identify
from dsv4_serve.entrypoint.checkpoint.described import Description, StoredTensor
from dsv4_serve.entrypoint.checkpoint.identity import Identity
from tests.support import checkpoints
from tests.support.checkpoints import LAYOUTS, SHARD

MODELS = list(Catalog([]).every_model())
SERVED = {
    "flash": "deepseek-v4-flash fp8-mxfp4 mtp fp8-mxfp4 1",
    "flash-0731": "deepseek-v4-flash fp8-mxfp4 dspark fp8-mxfp4 3",
    "flash-base": "deepseek-v4-flash fp8 mtp fp8 1",
    "flash-vision": "deepseek-v4-flash-vision fp8-mxfp4 dspark fp8-mxfp4 3",
    "flash-nvfp4": "deepseek-v4-flash modelopt-nvfp4 mtp fp8-mxfp4 1",
    "flash-0731-nvfp4": "deepseek-v4-flash modelopt-nvfp4 dspark fp8-mxfp4 3",
    "nvfp4": "deepseek-v4-flash nvfp4 mtp unquantized 1",
    "w4a16": "deepseek-v4-flash w4a16 mtp unquantized 1",
    "acti": "deepseek-v4-flash w4a16 mtp w4a16 1",
    "pro": "deepseek-v4-pro fp8-mxfp4 mtp fp8-mxfp4 1",
    "pro-0813": "deepseek-v4-pro fp8-mxfp4 dspark fp8-mxfp4 3",
    "pro-nvfp4": "deepseek-v4-pro modelopt-nvfp4 mtp fp8-mxfp4 1",
    "pro-0813-nvfp4": "deepseek-v4-pro modelopt-nvfp4 dspark fp8-mxfp4 3",
    "v41-flash": "deepseek-v4.1-flash fp8-mxfp4 dspark  3",
    "v41-flash-nvfp4": "deepseek-v4.1-flash modelopt-nvfp4 dspark  3",
}
NAMED = {
    "w4a8": "compressed-tensors W4A8", "w8a8": "compressed-tensors W8A8", "bf16": "BF16", "autoround": "AutoRound",
    "awq": "AWQ", "gptq": "GPTQ", "quark": "Quark", "bitsandbytes": "bitsandbytes", "ascend": "Ascend", "exl3": "EXL3",
    "turboquant": "TurboQuant", "gguf": "GGUF",
}  # fmt: skip
VLLM_HAS = {"AWQ", "GPTQ", "AutoRound", "Quark", "BF16", "compressed-tensors W4A8", "compressed-tensors W8A8"}


def identity(layout: str, folder: Path) -> Identity:
    return identify.identity_of(LAYOUTS[layout](folder), "test")


def model(found: Identity) -> str:
    matching = identify.match(found, MODELS)
    return matching.name if matching else ""


@pytest.mark.parametrize("layout", SERVED)
def test_a_published_layout_is_its_model(tmp_path: Path, layout: str) -> None:
    found = identity(layout, tmp_path)
    drafter = found.drafter
    seen = f"{found.architecture} {found.scheme} {drafter.kind} {drafter.scheme} {drafter.layers}"
    assert (seen, model(found), found.unsupported, found.missing) == (SERVED[layout], layout, None, ())
    if drafter.kind == "dspark":
        assert drafter.block_size == 5


@pytest.mark.parametrize("layout", [name for name in SERVED if not name.startswith("v41")])
def test_the_index_alone_says_the_same_but_for_the_drafters_size(tmp_path: Path, layout: str) -> None:
    folder = LAYOUTS[layout](tmp_path)
    config = json.loads((folder / "config.json").read_text())
    on_hub = identify.identify(described.from_index(config, (folder / checkpoints.INDEX).read_bytes()))
    here = identify.identity_of(folder, "test")
    assert (model(on_hub), on_hub.drafter.kind) == (layout, here.drafter.kind)
    assert (on_hub.drafter.bytes, here.drafter.bytes > 0) == (0, True)


@pytest.mark.parametrize("layout", NAMED)
def test_another_quantization_is_named_and_no_model(tmp_path: Path, layout: str) -> None:
    found = identity(layout, tmp_path)
    assert found.unsupported
    assert (found.unsupported.name, model(found)) == (NAMED[layout], "")
    assert ("does not load" not in found.unsupported.loads) == (NAMED[layout] in VLLM_HAS | {"TurboQuant"})


@pytest.mark.vllm
def test_what_vllm_is_said_not_to_load_is_none_of_its_methods() -> None:
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    assert not {"bitsandbytes", "gguf", "exl3", "ascend", "turboquant"} & set(QUANTIZATION_METHODS)
    assert {"awq", "gptq", "inc", "quark", "compressed-tensors", "torchao", "modelopt"} <= set(QUANTIZATION_METHODS)


@pytest.mark.parametrize("layout", ["nvfp4-undrafted", "w4a16-undrafted"])
def test_a_checkpoint_without_a_drafter_is_its_model_undrafted(tmp_path: Path, layout: str) -> None:
    found = identity(layout, tmp_path)
    assert (model(found), found.drafter.kind) == (layout.removesuffix("-undrafted"), "none")


def test_base_without_its_field_would_be_misread(tmp_path: Path) -> None:
    found = identity("flash-base-without-field", tmp_path)
    assert (model(found), found.missing) == ("flash-base", ('expert_dtype "fp8" in config.json',))


def test_sizes_are_those_of_the_files_and_what_is_stored_twice_is_not_loaded_twice(tmp_path: Path) -> None:
    found = identity("w4a16", tmp_path)
    stored = checkpoints.tensors(43, "int4", "mtp", "bf16", shares=True)
    drafter = {name: stored[name] for name in checkpoints.drafting(stored)}
    shared = {name: stored[name] for name in ("mtp.0.head.weight", "mtp.0.emb.tok_emb.weight")}
    assert found.bytes == (tmp_path / SHARD).stat().st_size
    assert found.shared_bytes == checkpoints.size(shared) == 8 * 8 * (4 + 2)
    assert found.drafter.bytes == checkpoints.size(drafter) - found.shared_bytes
    assert found.loaded_bytes == found.bytes - found.shared_bytes


def test_files_that_the_index_names_and_the_folder_lacks_are_missing(tmp_path: Path) -> None:
    folder = LAYOUTS["flash-0731"](tmp_path)
    index = json.loads((folder / checkpoints.INDEX).read_text())
    index["weight_map"]["layers.7.attn.wq_b.weight"] = "model-00002-of-00002.safetensors"
    (folder / checkpoints.INDEX).write_text(json.dumps(index))
    assert identify.identity_of(folder, "test").missing == ("model-00002-of-00002.safetensors",)


def test_the_tensors_decide_over_the_config_what_drafts(tmp_path: Path) -> None:
    """An MTP head under a config that promises DSpark, and the reverse."""
    head = checkpoints.write(
        tmp_path / "a", checkpoints.config(**checkpoints.DSPARK), checkpoints.tensors(43, "mxfp4", "mtp", "mxfp4")
    )
    drafter = checkpoints.write(
        tmp_path / "b", checkpoints.config(), checkpoints.tensors(43, "mxfp4", "dspark", "mxfp4")
    )
    assert identify.identity_of(head, "test").drafter.kind == "mtp"
    assert identify.identity_of(drafter, "test").drafter.kind == "dspark"


@pytest.mark.parametrize("layout", ["flash-0731", "w4a16", "acti"])
def test_without_an_index_the_headers_say_the_same(tmp_path: Path, layout: str) -> None:
    with_index = identity(layout, tmp_path)
    (tmp_path / checkpoints.INDEX).unlink()
    assert identify.identity_of(tmp_path, "test") == with_index


def test_without_names_of_tensors_a_dspark_drafter_has_the_layers_that_vllm_builds() -> None:
    """V4's code reads n_mtp_layers, or takes three; V4.1's reads num_nextn_predict_layers too."""
    dspark = checkpoints.config(**checkpoints.DSPARK)  # its num_nextn_predict_layers is 1
    for fields, layers in ((dspark, 3), (dspark | {"n_mtp_layers": 2}, 2), (dict(checkpoints.V41), 3)):
        assert identify.identify(Description(fields)).drafter.layers == layers
    nested = {**checkpoints.V41["text_config"], "num_nextn_predict_layers": 4}
    assert identify.identify(Description({**checkpoints.V41, "text_config": nested})).drafter.layers == 4


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_no_index_and_no_header_makes_identifying_fail(index: bytes, config: bytes) -> None:
    try:
        fields = identify.config_object(config, "test")
    except identify.ConfigError:
        fields = {}
    assert identify.identify(described.from_index(fields, index)).drafter.kind in ("mtp", "dspark", "none")


_NAMES = st.sampled_from([
    "layers.0.ffn.experts.0.w1.weight", "layers.0.ffn.experts.0.w1.scale", "layers.0.ffn.experts.0.w1.weight_packed",
    "mtp.0.ffn.experts.0.w1.weight", "mtp.0.main_proj.weight", "mtp.2.markov_head.markov_w1.weight", "mtp.9.norm.weight",
])  # fmt: skip
_FIELDS = st.sampled_from([
    "architectures", "hidden_size", "num_hidden_layers", "num_nextn_predict_layers", "dspark_block_size",
    "dspark_target_layer_ids", "quantization_config", "text_config", "vision_n_layers", "expert_dtype",
])  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9000) | st.sampled_from(["fp8", "DeepseekV4ForCausalLM", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS | st.just("quant_method"), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(_FIELDS, _JSON),
    st.dictionaries(_NAMES, st.builds(StoredTensor, st.sampled_from(["", "I8", "BF16", "F8_E4M3"]), st.integers(0, 9))),
    st.booleans(),
)
def test_any_config_and_tensors_are_some_checkpoint(
    fields: dict[str, Any], tensors: dict[str, StoredTensor], whole: bool
) -> None:
    found = identify.identify(Description(fields, tensors, whole))
    identify.match(found, MODELS)
    names = [name for name in tensors if name.startswith("mtp.")]
    assert (found.drafter.kind != "none") or not names
    assert found.drafter.bytes <= sum(tensor.bytes for tensor in tensors.values())
