# pyright: reportAttributeAccessIssue=false
# vLLM has these names when the series is applied.
def compressors(layout):
    from tests.support import cuda_model

    target, _, config = cuda_model.built(layout)
    names = cuda_model.load(target, config)
    assert {name for name, _ in target.named_parameters()} == names
    return target.model.layers[1].attn


def check_fp8_and_bf16_compressors_load_as_the_same_numbers():
    import torch

    fp8, bf16 = compressors("acti"), compressors("bf16")
    for path in ("compressor.fused_wkv_wgate", "indexer.compressor.fused_wkv_wgate", "indexer.weights_proj"):
        loaded, expected = (attention.get_submodule(path).weight for attention in (fp8, bf16))
        assert loaded.dtype == torch.bfloat16
        assert expected.abs().sum() > 0
        assert torch.equal(loaded, expected), path


def check_a_weight_that_is_built_in_fp8_stays_fp8():
    import torch

    wq_b = compressors("acti").indexer.wq_b
    assert wq_b.weight.dtype == torch.float8_e4m3fn
    assert wq_b.weight_scale.abs().sum() > 0


def check_blocks_at_the_edge_take_their_own_scale():
    import torch
    from vllm.models.deepseek_v4.nvidia.model import _dequantize_compressors

    weight = torch.ones(130, 200).to(torch.float8_e4m3fn)
    scale = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    stream = [("a.compressor.wkv.weight_scale", scale), ("b.weight", weight), ("a.compressor.wkv.weight", weight)]
    found = dict(_dequantize_compressors(stream, ["b.weight"], {}))
    assert set(found) == {"b.weight", "a.compressor.wkv.weight"}
    dense = found["a.compressor.wkv.weight"]
    assert [dense[row, col].item() for row, col in ((0, 0), (0, 199), (129, 0), (129, 199))] == [1, 2, 4, 8]


def reordered(order):
    """The target model of an FP8 checkpoint whose tensors come in another order, and what loading it raised."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    from tests.support import cuda_model

    cuda_model.prepare()
    config = cuda_model.engine_config(cuda_model.checkpoint("acti"))
    target, _ = cuda_model.build(config)
    with set_current_vllm_config(config):
        stream = dict(DefaultModelLoader(config.load_config).get_all_weights(config.model_config, target))
        try:
            target.load_weights((name, stream[name]) for name in order(list(stream)))
        except ValueError as error:
            return target, str(error)
    return target, ""


SCALE = ".compressor.wkv.weight_scale"


def head_between(names):
    """Compressors' scales behind the head, whose name has another prefix: two runs of the model's tensors."""
    last = [name for name in names if name.endswith(SCALE)]
    assert last
    return [name for name in names if name not in {*last, "head.weight"}] + ["head.weight", *last]


def check_the_head_may_stand_between_a_weight_and_its_scale():
    import torch

    expected = compressors("bf16").compressor.fused_wkv_wgate.weight
    for order in (head_between, lambda names: head_between(names)[::-1]):
        target, message = reordered(order)
        assert not message, message
        assert torch.equal(target.model.layers[1].attn.compressor.fused_wkv_wgate.weight, expected)


def check_a_weight_without_its_scale_is_named():
    _, message = reordered(lambda names: [name for name in names if not name.endswith(SCALE)])
    assert "lack their weight or their weight_scale" in message, message
    assert "layers.1.attn.compressor.wkv" in message, message


def check_an_update_may_send_a_weight_and_its_scale_in_turn():
    from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

    with disable_mtp_completeness_check():
        target, message = reordered(lambda names: [name for name in names if not name.endswith(SCALE)])
    assert not message, message
    waiting = target.model.waiting_for_pair
    assert "layers.1.attn.compressor.wkv" in waiting, sorted(waiting)
    assert {name.rpartition(".")[2] for name in waiting} == {"wkv"}


def test_fp8_and_bf16_compressors_load_as_the_same_numbers(needs_patch):
    reason = "attn.compressor.fused_wkv_wgate.weight_scale"
    needs_patch("check_fp8_and_bf16_compressors_load_as_the_same_numbers", reason)


def test_a_weight_that_is_built_in_fp8_stays_fp8(needs_patch):
    needs_patch("check_a_weight_that_is_built_in_fp8_stays_fp8", "fused_wkv_wgate.weight_scale")


def test_blocks_at_the_edge_take_their_own_scale(needs_patch):
    needs_patch("check_blocks_at_the_edge_take_their_own_scale", "cannot import name '_dequantize_compressors'")


def test_the_head_may_stand_between_a_weight_and_its_scale(needs_patch):
    needs_patch("check_the_head_may_stand_between_a_weight_and_its_scale", "fused_wkv_wgate.weight_scale")


def test_a_weight_without_its_scale_is_named(needs_patch):
    needs_patch("check_a_weight_without_its_scale_is_named", "fused_wkv_wgate.weight_scale")


def test_an_update_may_send_a_weight_and_its_scale_in_turn(needs_patch):
    needs_patch("check_an_update_may_send_a_weight_and_its_scale_in_turn", "fused_wkv_wgate.weight_scale")
