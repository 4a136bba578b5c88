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
    found = dict(_dequantize_compressors(stream, ["b.weight"]))
    assert set(found) == {"b.weight", "a.compressor.wkv.weight"}
    dense = found["a.compressor.wkv.weight"]
    assert [dense[row, col].item() for row, col in ((0, 0), (0, 199), (129, 0), (129, 199))] == [1, 2, 4, 8]


def check_a_weight_without_its_scale_is_named():
    import torch
    from vllm.models.deepseek_v4.nvidia.model import _dequantize_compressors

    alone = [("layers.1.attn.compressor.wkv.weight", torch.ones(1, 1).to(torch.float8_e4m3fn))]
    try:
        list(_dequantize_compressors(alone, []))
        message = "accepted"
    except ValueError as error:
        message = str(error)
    assert "layers.1.attn.compressor.wkv" in message


def test_fp8_and_bf16_compressors_load_as_the_same_numbers(needs_patch):
    reason = "attn.compressor.fused_wkv_wgate.weight_scale"
    needs_patch("check_fp8_and_bf16_compressors_load_as_the_same_numbers", reason)


def test_a_weight_that_is_built_in_fp8_stays_fp8(needs_patch):
    needs_patch("check_a_weight_that_is_built_in_fp8_stays_fp8", "fused_wkv_wgate.weight_scale")


def test_blocks_at_the_edge_take_their_own_scale(needs_patch):
    needs_patch("check_blocks_at_the_edge_take_their_own_scale", "cannot import name '_dequantize_compressors'")


def test_a_weight_without_its_scale_is_named(needs_patch):
    needs_patch("check_a_weight_without_its_scale_is_named", "cannot import name '_dequantize_compressors'")
