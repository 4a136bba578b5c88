def check_the_published_nvfp4_trunk_is_quantized_and_loads():
    from tests.support import cuda_model

    trunk, _, config = cuda_model.built("nvfp4")
    found = cuda_model.scheme(trunk.model.layers[0].ffn.experts.routed_experts)
    assert found == "CompressedTensorsW4A4Nvfp4MoEMethod", f"trunk experts are {found}"
    names = cuda_model.load(trunk, config)
    assert {name for name, _ in trunk.named_parameters()} == names


def check_an_ignored_expert_stays_unquantized():
    """An ignore entry by the checkpoint's names also ends the search by the old ones."""
    from tests.support import cuda_model

    cuda_model.prepare()
    config = cuda_model.engine_config(cuda_model.checkpoint("nvfp4"))
    config.quant_config.ignore.append(r"re:.*layers\.1\.ffn\.experts\.\d+\.w[123]$")
    trunk, _ = cuda_model.build(config)
    found = [cuda_model.scheme(layer.ffn.experts.routed_experts) for layer in trunk.model.layers]
    nvfp4 = "CompressedTensorsW4A4Nvfp4MoEMethod"
    assert found == [nvfp4, "UnquantizedFusedMoEMethod", nvfp4]


def test_the_published_nvfp4_trunk_is_quantized_and_loads(needs_patch):
    reason = "trunk experts are UnquantizedFusedMoEMethod"
    needs_patch("check_the_published_nvfp4_trunk_is_quantized_and_loads", reason)


def test_an_ignored_expert_stays_unquantized(needs_patch):
    needs_patch("check_an_ignored_expert_stays_unquantized", "AssertionError")
