# pyright: reportAttributeAccessIssue=false
# vLLM has these names when the series is applied.
import pytest

SAYS = "draft head weights were not initialized"
LAYOUTS = ("bf16", "native", "w4a16", "nvfp4", "acti", "pro")


def check_complete_draft_heads_of_every_layout_load():
    from tests.support import cuda_model

    for layout in LAYOUTS:
        _, draft, config = cuda_model.built(layout)
        cuda_model.load(draft, config)


def holed(layout):
    from tests.support import cuda_model

    _, draft, config = cuda_model.built(layout, "holed")
    assert f"model.layers.{cuda_model.DRAFT}.mtp_block.attn.wo_b.weight" in cuda_model.refusal(draft, config, SAYS)


def check_a_missing_weight_is_named_in_bf16():
    holed("bf16")


def check_a_missing_weight_is_named_in_native():
    holed("native")


def check_a_missing_weight_is_named_in_w4a16():
    holed("w4a16")


def check_a_missing_weight_is_named_in_nvfp4():
    holed("nvfp4")


def check_a_missing_weight_is_named_in_acti():
    holed("acti")


def check_a_missing_weight_is_named_in_pro():
    holed("pro")


def without(skipped):
    """The refusal of a draft whose stream lacks one tensor."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    from tests.support import cuda_model

    _, draft, config = cuda_model.built("native")
    original = DefaultModelLoader.get_all_weights
    DefaultModelLoader.get_all_weights = lambda *a: (item for item in original(*a) if item[0] != skipped)
    try:
        with set_current_vllm_config(config):
            return cuda_model.refusal(draft, config, SAYS)
    finally:
        DefaultModelLoader.get_all_weights = original


def check_one_missing_expert_is_named():
    assert "w2_weight_scale (7 of 8 expert shards)" in without("mtp.0.ffn.experts.3.w2.scale")


def check_one_missing_half_of_a_fused_weight_is_named():
    assert "gate_up_proj.weight (1 of 2 shards)" in without("mtp.0.ffn.shared_experts.w3.weight")


def fused_shared(loaded):
    """What the check says of a draft with routed experts and a shared one fused with them, as vLLM 0.33 builds it."""
    import torch
    from vllm.models.deepseek_v4.nvidia.mtp import _check_every_parameter_loaded

    experts = "model.layers.3.mtp_block.ffn.experts"
    routed, shared = f"{experts}.w13_weight", f"{experts}.shared_l1_weight"
    params = {name: torch.nn.Parameter(torch.ones(4, 2)) for name in (routed, shared)}
    shards = {routed: {(expert, shard) for expert in range(4) for shard in ("w1", "w3")}}
    try:
        _check_every_parameter_loaded(params, {routed, *([shared] if loaded else [])}, shards, count_experts=True)
    except ValueError as error:
        return str(error)
    return ""


def check_a_fused_shared_expert_is_no_routed_one():
    assert fused_shared(loaded=True) == ""


def check_a_missing_fused_shared_expert_is_named():
    message = fused_shared(loaded=False)
    assert "experts.shared_l1_weight." in message, message
    assert "w13" not in message, message


def check_a_partial_update_may_be_partial():
    """Reloading some weights of a running engine goes through the same loader."""
    from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

    from tests.support import cuda_model

    _, draft, config = cuda_model.built("native", "holed")
    with disable_mtp_completeness_check():
        assert cuda_model.load(draft, config)


def test_complete_draft_heads_of_every_layout_load(holds):
    holds("check_complete_draft_heads_of_every_layout_load")


@pytest.mark.parametrize("layout", ["bf16", "native"])
def test_a_missing_weight_is_named(needs_patch, layout):
    needs_patch(f"check_a_missing_weight_is_named_in_{layout}", "loaded in silence")


@pytest.mark.parametrize("layout", ["w4a16", "nvfp4", "acti", "pro"])
def test_a_missing_weight_is_named_with_other_patches_applied(holds, layout):
    holds(f"check_a_missing_weight_is_named_in_{layout}")


def test_one_missing_expert_is_named(needs_patch):
    needs_patch("check_one_missing_expert_is_named", "loaded in silence")


def test_one_missing_half_of_a_fused_weight_is_named(needs_patch):
    needs_patch("check_one_missing_half_of_a_fused_weight_is_named", "loaded in silence")


def test_a_fused_shared_expert_is_no_routed_one(needs_patch):
    needs_patch("check_a_fused_shared_expert_is_no_routed_one", "cannot import name '_check_every_parameter_loaded'")


def test_a_missing_fused_shared_expert_is_named(needs_patch):
    needs_patch("check_a_missing_fused_shared_expert_is_named", "cannot import name '_check_every_parameter_loaded'")


def test_a_partial_update_may_be_partial(holds):
    holds("check_a_partial_update_may_be_partial")
