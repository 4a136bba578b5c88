# pyright: reportAttributeAccessIssue=false
# vLLM has these names when the series is applied.
import pytest

SAYS = "drafter weights were not initialized"
LAYOUTS = ("flash-0731", "flash-0731-nvfp4")


def without(*skipped, layout="flash-0731"):
    """The refusal of a drafter whose stream lacks tensors."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    from tests.support import cuda_model

    _, draft, config = cuda_model.built(layout)
    original = DefaultModelLoader.get_all_weights
    DefaultModelLoader.get_all_weights = lambda *a: (item for item in original(*a) if item[0] not in skipped)
    try:
        with set_current_vllm_config(config):
            return cuda_model.refusal(draft, config, SAYS)
    finally:
        DefaultModelLoader.get_all_weights = original


def check_complete_drafters_load():
    from tests.support import cuda_model

    for layout in LAYOUTS:
        _, draft, config = cuda_model.built(layout)
        cuda_model.load(draft, config)


def check_a_drafter_without_a_confidence_head_loads():
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    from tests.support import cuda_model

    _, draft, config = cuda_model.built("flash-0731")
    original = DefaultModelLoader.get_all_weights
    DefaultModelLoader.get_all_weights = lambda *a: (item for item in original(*a) if "confidence_head" not in item[0])
    try:
        cuda_model.load(draft, config)
    finally:
        DefaultModelLoader.get_all_weights = original
    assert draft.model.confidence_head is None


def check_a_missing_weight_is_named():
    from tests.support import cuda_model

    for layout in LAYOUTS:
        _, draft, config = cuda_model.built(layout, "holed")
        assert "model.layers.1.attn.wo_b.weight (0 of 1)" in cuda_model.refusal(draft, config, SAYS)


def check_a_missing_expert_is_named():
    assert "w2_weight_scale (7 of 8)" in without("mtp.2.ffn.experts.3.w2.scale")
    assert "w13_weight (15 of 16)" in without("mtp.1.ffn.experts.7.w3.weight")


def check_a_missing_half_of_a_fused_weight_is_named():
    message = without("mtp.0.ffn.shared_experts.w3.weight", "mtp.1.attn.wkv.weight")
    assert "gate_up_proj.weight (1 of 2)" in message
    assert "fused_wqa_wkv.weight (1 of 2)" in message
    assert "model.context_wkv_proj.weight (2 of 3)" in message


def check_a_missing_head_is_named():
    for name in (
        "mtp.0.main_proj.scale",
        "mtp.0.main_norm.weight",
        "mtp.2.markov_head.markov_w2.weight",
        "mtp.2.norm.weight",
    ):
        assert name.split(".", 2)[2].replace("scale", "weight_scale_inv") in without(name)


def check_a_checkpoint_without_a_drafter_is_refused():
    from tests.support import cuda_model

    _, draft, config = cuda_model.built("flash-0731", "removed")
    assert "more" in cuda_model.refusal(draft, config, SAYS)


def test_complete_drafters_load(holds):
    holds("check_complete_drafters_load")


def test_a_drafter_without_a_confidence_head_loads(holds):
    holds("check_a_drafter_without_a_confidence_head_loads")


@pytest.mark.parametrize(
    "check",
    [
        "a_missing_weight_is_named",
        "a_missing_expert_is_named",
        "a_missing_half_of_a_fused_weight_is_named",
        "a_missing_head_is_named",
        "a_checkpoint_without_a_drafter_is_refused",
    ],
)
def test_an_incomplete_drafter_is_refused(needs_patch, check):
    needs_patch(f"check_{check}", "loaded in silence")
