# pyright: reportAttributeAccessIssue=false
# vLLM has these names when the series is applied.
def experts(layout):
    from tests.support import cuda_model

    target, draft, config = cuda_model.built(layout)
    inner = draft.model.layers[str(cuda_model.DRAFT)].mtp_block.ffn.experts.routed_experts
    return target.model.layers[0].ffn.experts.routed_experts, inner, config


def check_an_nvfp4_target_keeps_mxfp4_draft_experts():
    from tests.support import cuda_model

    target, draft, _ = experts("pro")
    assert cuda_model.scheme(target) == "ModelOptNvFp4FusedMoE"
    assert cuda_model.scheme(draft) == "Mxfp4MoEMethod", f"draft experts are {cuda_model.scheme(draft)}"


def check_the_loaded_bytes_are_those_on_disk():
    import torch
    from safetensors import safe_open

    from tests.support import cuda_model

    _, draft, config = cuda_model.built("pro")
    cuda_model.load(draft, config)
    _, moe, _ = experts("pro")
    with safe_open(cuda_model.checkpoint("pro") / "model-00002-of-00002.safetensors", "pt") as file:
        weight = file.get_tensor("mtp.0.ffn.experts.5.w2.weight").view(torch.uint8)
        scale = file.get_tensor("mtp.0.ffn.experts.5.w2.scale").view(torch.uint8)
    assert torch.equal(moe.w2_weight[5], weight)
    assert moe.w2_weight_scale.dtype == torch.uint8
    assert torch.equal(moe.w2_weight_scale[5], scale)


def check_nvfp4_draft_experts_stay_nvfp4():
    from vllm.config import set_current_vllm_config
    from vllm.models.deepseek_v4.common import draft_checkpoint

    from tests.support import cuda_model

    _, _, config = experts("pro")
    original = draft_checkpoint._tensor_names
    try:
        for suffix, nvfp4 in (("weight_scale_2", True), ("scale", False)):
            draft_checkpoint._tensor_names = lambda *_, s=suffix: frozenset({f"mtp.0.ffn.experts.0.w1.{s}"})
            with set_current_vllm_config(config):
                prefix = f"model.layers.{cuda_model.DRAFT}.ffn.experts"
                assert config.quant_config._is_nvfp4_expert_layer(prefix) is nvfp4
    finally:
        draft_checkpoint._tensor_names = original


def check_cuda_uses_the_class_that_is_patched():
    """deepseek_v4's class is not the one in use: quantization/__init__.py takes deepseek_v41's on CUDA."""
    import inspect

    from vllm.model_executor.layers.quantization import get_quantization_config

    source = inspect.getsource(get_quantization_config)
    cuda = source.partition("current_platform.is_cuda()")[2].partition("else:")[0]
    assert "from vllm.models.deepseek_v41 import" in cuda


def test_an_nvfp4_target_keeps_mxfp4_draft_experts(needs_patch):
    needs_patch("check_an_nvfp4_target_keeps_mxfp4_draft_experts", "draft experts are ModelOptNvFp4FusedMoE")


def test_the_loaded_bytes_are_those_on_disk(needs_patch):
    needs_patch("check_the_loaded_bytes_are_those_on_disk", "AssertionError")


def test_nvfp4_draft_experts_stay_nvfp4(needs_patch):
    needs_patch("check_nvfp4_draft_experts_stay_nvfp4", "draft_checkpoint")


def test_cuda_uses_the_class_that_is_patched(holds):
    holds("check_cuda_uses_the_class_that_is_patched")
