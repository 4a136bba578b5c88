def refusal(layout):
    from tests.support import cuda_model

    try:
        cuda_model.engine_config(cuda_model.checkpoint(layout), moe_backend="deep_gemm_mega_moe")
    except ValueError as error:
        return str(error)
    raise AssertionError("accepted")


def check_nvfp4_by_modelopt_is_refused():
    assert "deep_gemm_mega_moe reads DeepSeek's own MXFP4 experts only" in refusal("pro")


def check_compressed_tensors_are_refused():
    assert "experts are compressed-tensors" in refusal("nvfp4")


def check_native_experts_are_not_refused():
    from tests.support import cuda_model

    config = cuda_model.engine_config(cuda_model.checkpoint("native"), moe_backend="deep_gemm_mega_moe")
    assert config.kernel_config.moe_backend == "deep_gemm_mega_moe"


def test_nvfp4_by_modelopt_is_refused(needs_patch):
    needs_patch("check_nvfp4_by_modelopt_is_refused", "accepted")


def test_compressed_tensors_are_refused(needs_patch):
    needs_patch("check_compressed_tensors_are_refused", "accepted")


def test_native_experts_are_not_refused(holds):
    holds("check_native_experts_are_not_refused")
