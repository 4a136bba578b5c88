def check_the_published_nvfp4_target_is_quantized_and_loads():
    from tests.support import cuda_model

    target, _, config = cuda_model.built("nvfp4")
    found = cuda_model.scheme(target.model.layers[0].ffn.experts.routed_experts)
    assert found == "CompressedTensorsW4A4Nvfp4MoEMethod", f"target experts are {found}"
    names = cuda_model.load(target, config)
    assert {name for name, _ in target.named_parameters()} == names


def check_an_ignored_expert_stays_unquantized():
    """An ignore entry by the checkpoint's names also ends the search by the old ones."""
    from tests.support import cuda_model

    cuda_model.prepare()
    config = cuda_model.engine_config(cuda_model.checkpoint("nvfp4"))
    config.quant_config.ignore.append(r"re:.*layers\.1\.ffn\.experts\.\d+\.w[123]$")
    target, _ = cuda_model.build(config)
    found = [cuda_model.scheme(layer.ffn.experts.routed_experts) for layer in target.model.layers]
    nvfp4 = "CompressedTensorsW4A4Nvfp4MoEMethod"
    assert found == [nvfp4, "UnquantizedFusedMoEMethod", nvfp4]


def test_the_published_nvfp4_target_is_quantized_and_loads(needs_patch):
    reason = "target experts are UnquantizedFusedMoEMethod"
    needs_patch("check_the_published_nvfp4_target_is_quantized_and_loads", reason)


def test_an_ignored_expert_stays_unquantized(needs_patch):
    needs_patch("check_an_ignored_expert_stays_unquantized", "AssertionError")
