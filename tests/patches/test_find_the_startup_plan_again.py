import contextlib
import os
import tempfile
from types import SimpleNamespace
from unittest.mock import MagicMock, patch

GIB = 1 << 30


def worker(block_size=256, free=139 * GIB):
    """What vLLM's startup plan reads of a worker: a real configuration, and the free memory."""
    from tests.support import cuda_model

    config = cuda_model.engine_config(cuda_model.checkpoint("native"))
    config.cache_config.block_size = block_size
    return SimpleNamespace(
        vllm_config=config,
        cache_config=config.cache_config,
        parallel_config=config.parallel_config,
        rank=0,
        init_snapshot=SimpleNamespace(free_memory=free),
    )


@contextlib.contextmanager
def switched_on():
    from vllm.platforms import current_platform

    memory = patch.object(type(current_platform), "get_device_total_memory", return_value=141 * GIB)
    with tempfile.TemporaryDirectory() as folder:
        variables = {"VLLM_ENABLE_STARTUP_PLAN": "1", "VLLM_CACHE_ROOT": folder}
        with memory, patch.dict(os.environ, variables):
            yield


def started(one, size=40 * GIB):
    """Look a plan up as a start does, and save one after the KV cache was allocated; return the size that was applied."""
    from vllm.v1.worker import startup_plan

    startup_plan.maybe_apply_startup_plan(one)
    applied = one.cache_config.kv_cache_memory_bytes
    one.cache_config.block_size = 4  # the smallest of the groups (`engine/core.py`)
    if applied is None:
        startup_plan.maybe_save_startup_plan(one, size)
    return applied


def check_the_second_start_applies_what_the_first_saved():
    with switched_on():
        assert started(worker()) is None
        assert started(worker()) == 40 * GIB, "profiled again"


def check_less_free_memory_profiles_again():
    with switched_on():
        started(worker())
        assert started(worker(free=139 * GIB - 1)) is None
        assert started(worker(free=139 * GIB - 1)) == 40 * GIB, "profiled again"


def check_another_plan_profiles_again():
    with switched_on():
        started(worker())
        assert started(worker(block_size=128)) is None


def check_it_saves_the_size_that_was_used():
    """40 GiB used of 126, beside 80 for weights and 6 for activations with 3 for graphs as estimated."""
    from vllm.v1.worker import gpu_worker

    one = MagicMock(use_v2_model_runner=True, total_consumed=80 * GIB, peak_activation_memory=6 * GIB)
    one.vllm_config.compilation_config.mode = None
    one.model_config.enforce_eager, one.cache_config.kv_cache_memory_bytes = False, None
    one.cudagraph_memory_estimate = one.model_runner.capture_model.return_value = 3 * GIB
    one.init_snapshot.free_memory, one.init_snapshot.total_memory, one.requested_memory = (
        139 * GIB,
        140 * GIB,
        126 * GIB,
    )
    one.available_kv_cache_memory_bytes = 40 * GIB
    with (
        patch.object(gpu_worker, "kernel_warmup"),
        patch.object(gpu_worker, "warmup_kernels"),
        patch.object(gpu_worker, "maybe_save_startup_plan", side_effect=InterruptedError) as save,
        contextlib.suppress(InterruptedError),
    ):
        gpu_worker.Worker.compile_or_warm_up_model(one)
    assert save.call_args.args == (one, 40 * GIB), f"saved {save.call_args.args[1] / GIB:.2f} GiB"


def test_the_second_start_applies_what_the_first_saved(needs_patch):
    needs_patch("check_the_second_start_applies_what_the_first_saved", "profiled again")


def test_less_free_memory_profiles_again(needs_patch):
    needs_patch("check_less_free_memory_profiles_again", "profiled again")


def test_another_plan_profiles_again(holds):
    holds("check_another_plan_profiles_again")


def test_it_saves_the_size_that_was_used(needs_patch):
    needs_patch("check_it_saves_the_size_that_was_used", "saved 36.85 GiB")
