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


def check_the_old_names_are_tried_for_deepseek_v4_only():
    """The class that looks experts up is that of every model."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
        compressed_tensors_moe as module,
    )

    from tests.support import cuda_model

    target, _, config = cuda_model.built("nvfp4")
    layer = target.model.layers[0].ffn.experts.routed_experts
    model = config.model_config.hf_config
    own, found = model.model_type, []
    try:
        for model.model_type in (own, "mixtral"):
            with set_current_vllm_config(config):
                method = module.CompressedTensorsMoEMethod.get_moe_method(
                    config.quant_config, layer, "layers.0.ffn.experts"
                )
            found.append(type(method).__name__)
    finally:
        model.model_type = own
    assert found == ["CompressedTensorsW4A4Nvfp4MoEMethod", "UnquantizedFusedMoEMethod"], found


def test_the_published_nvfp4_target_is_quantized_and_loads(needs_patch):
    reason = "target experts are UnquantizedFusedMoEMethod"
    needs_patch("check_the_published_nvfp4_target_is_quantized_and_loads", reason)


def test_an_ignored_expert_stays_unquantized(needs_patch):
    needs_patch("check_an_ignored_expert_stays_unquantized", "AssertionError")


def test_the_old_names_are_tried_for_deepseek_v4_only(needs_patch):
    reason = "['UnquantizedFusedMoEMethod', 'UnquantizedFusedMoEMethod']"
    needs_patch("check_the_old_names_are_tried_for_deepseek_v4_only", reason)
