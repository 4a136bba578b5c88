# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# vLLM has these names when the series is applied.
def schemes(layout):
    from tests.support import cuda_model

    target, draft, _ = cuda_model.built(layout)
    block = draft.model.layers[str(cuda_model.DRAFT)]
    inner = block.mtp_block
    return {
        "target attention": cuda_model.scheme(target.model.layers[0].attn.wo_b),
        "target experts": cuda_model.scheme(target.model.layers[0].ffn.experts.routed_experts),
        "experts": cuda_model.scheme(inner.ffn.experts.routed_experts),
        "attention": {cuda_model.scheme(m) for m in (inner.attn.fused_wqa_wkv, inner.attn.wq_b, inner.attn.wo_b)},
        "shared": {
            cuda_model.scheme(m) for m in (inner.ffn.shared_experts.gate_up_proj, inner.ffn.shared_experts.down_proj)
        },
        "projections": {cuda_model.scheme(block.e_proj), cuda_model.scheme(block.h_proj)},
    }


PLAIN = {"UnquantizedLinearMethod"}
FP8 = "CompressedTensorsW8A8Fp8"


def check_w4a16_draft_is_plain_and_its_target_is_not():
    found = schemes("w4a16")
    assert found.pop("target attention") == FP8
    assert found.pop("target experts") == "CompressedTensorsWNA16MoEMethod"
    assert found.pop("experts") == "UnquantizedFusedMoEMethod", "draft experts are quantized"
    assert list(found.values()) == [PLAIN] * 3


def check_nvfp4_draft_is_plain_and_its_target_is_not():
    found = schemes("nvfp4")
    assert found.pop("target attention") == FP8
    assert found["attention"] == PLAIN, "draft attention is quantized"
    assert found.pop("target experts") == "CompressedTensorsW4A4Nvfp4MoEMethod"
    assert found["experts"] == "UnquantizedFusedMoEMethod"


def check_a_quantized_draft_is_built_as_stored():
    found = schemes("acti")
    assert found["experts"] == "CompressedTensorsWNA16MoEMethod"
    assert found["attention"] == {FP8}
    assert found["shared"] == found["projections"] == PLAIN


def check_bf16_draft_weights_load():
    from tests.support import cuda_model

    _, draft, config = cuda_model.built("w4a16")
    names = cuda_model.load(draft, config)
    assert f"model.layers.{cuda_model.DRAFT}.mtp_block.ffn.experts.routed_experts.w13_weight" in names


def check_several_draft_layers_are_distinguished():
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsConfig
    from vllm.models.deepseek_v4.nvidia.mtp import _ignore_unquantized_modules

    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
    group = {"targets": [r"re:.*experts\.\d+\.w1$", r"re:.*wo_b$"], "weights": weights, "format": "pack-quantized"}
    config = CompressedTensorsConfig.from_config({"format": "pack-quantized", "config_groups": {"a": group}})
    _ignore_unquantized_modules(
        config,
        {
            43: frozenset({"attn.wo_b.weight", "ffn.experts.0.w1.weight_packed"}),
            44: frozenset({"attn.wo_b.weight_packed", "ffn.experts.0.w1.weight"}),
        },
    )
    quantized = {
        (layer, module)
        for layer in (42, 43, 44)
        for module in ("attn.wo_b", "ffn.experts.0.w1")
        if config.get_scheme_dict(None, f"model.layers.{layer}.{module}")
    }
    assert quantized == {
        (42, "attn.wo_b"), (42, "ffn.experts.0.w1"), (43, "ffn.experts.0.w1"), (44, "attn.wo_b"),
    }  # fmt: skip


def test_w4a16_draft_is_plain_and_its_target_is_not(needs_patch):
    needs_patch("check_w4a16_draft_is_plain_and_its_target_is_not", "draft experts are quantized")


def test_nvfp4_draft_is_plain_and_its_target_is_not(needs_patch):
    needs_patch("check_nvfp4_draft_is_plain_and_its_target_is_not", "draft attention is quantized")


def test_a_quantized_draft_is_built_as_stored(holds):
    holds("check_a_quantized_draft_is_built_as_stored")


def test_bf16_draft_weights_load(needs_patch):
    needs_patch("check_bf16_draft_weights_load", "experts.routed_experts.w13_weight")


def test_several_draft_layers_are_distinguished(needs_patch):
    needs_patch("check_several_draft_layers_are_distinguished", "cannot import name '_ignore_unquantized_modules'")
