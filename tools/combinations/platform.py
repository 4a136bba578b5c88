"""
A GPU that is stated, not there: vLLM's own CUDA platform with the capability that we say.

vLLM is imported as it is on a CPU, then its platform is switched; nothing is computed. What a CUDA build would find
installed or compiled in is answered as the image has it (PRESENT); every other answer is vLLM's own.
"""

import contextlib
import enum
import functools
import gc
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

CAPABILITIES = ("9.0", "10.0", "10.3", "12.0", "12.1")

FLASHINFER = "flashinfer-python 0.7.0.post1 with flashinfer-cubin"
PRESENT = {
    "has_deep_gemm": "vLLM's CUDA wheel",
    "has_triton_kernels": "vLLM's CUDA wheel",
    "has_humming": "humming-kernels 0.1.17",
    "has_cutedsl": "nvidia-cutlass-dsl 4.8.0",
    "has_flashinfer": FLASHINFER,
    "has_flashinfer_moe": FLASHINFER,
    "has_flashinfer_cutedsl": FLASHINFER,
    "has_flashinfer_sparse_mla_sm120": FLASHINFER,
}
"""vLLM's questions for packages that the image holds (requirements/gpu.txt)."""
COMPILED = {
    "cutlass_group_gemm_supported": lambda capability: 90 <= capability < 110,
    "cutlass_scaled_mm_supports_block_fp8": lambda capability: capability >= 90,
    "cutlass_scaled_mm_supports_fp4": lambda capability: capability >= 100,
    "cutlass_scaled_mm_supports_fp8": lambda capability: capability >= 89,
    "mxfp4_experts_quant_supported": lambda capability: capability >= 100,
}
"""vLLM's questions for its compiled CUDA kernels, answered for CUDA 13."""


class _Any:
    """A module of FlashInfer or b12x, of which only the names count; those that vLLM asks for are in the wheel."""

    def __getattr__(self, name: str) -> Callable[..., bool]:
        return lambda *_, **__: True


class _Switch:
    """The one object that all of vLLM's modules hold as `current_platform`."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


@functools.cache
def switch() -> Any:
    """Import what is asked later, as on a CPU, and return the switch that vLLM's modules hold as their platform."""
    platforms: Any = importlib.import_module("vllm.platforms")
    held = _Switch(platforms.current_platform)
    platforms._current_platform = platforms.current_platform = held
    for name in ("int_wna16", "mxfp4", "nvfp4", "fp8", "unquantized"):
        importlib.import_module(f"vllm.model_executor.layers.fused_moe.oracle.{name}")
    importlib.import_module("vllm.model_executor.kernels.linear")
    importlib.import_module("vllm.v1.worker.utils")
    importlib.import_module("vllm.model_executor.layers.indexer_topk")
    importlib.import_module("vllm.models.deepseek_v4.nvidia.model")
    importlib.import_module("vllm.models.deepseek_v41.nvidia.model")
    sys.modules.setdefault("vllm._C_stable_libtorch", types.ModuleType("vllm._C_stable_libtorch"))
    _answer(PRESENT, lambda *_, **__: True)
    operators = importlib.import_module("vllm._custom_ops")
    for name, answer in COMPILED.items():
        setattr(operators, name, answer)
    flashinfer = importlib.import_module("vllm.utils.flashinfer")
    setattr(flashinfer, "_get_submodule", lambda _: _Any())  # noqa: B010
    humming = importlib.import_module("vllm.utils.humming")
    kinds = ("indexed", "grouped_contiguous", "grouped_masked")
    setattr(humming, "GemmType", enum.Enum("GemmType", {kind.upper(): kind for kind in kinds}))  # noqa: B010
    cutlass = importlib.import_module("vllm.model_executor.kernels.linear.scaled_mm.cutlass")
    setattr(cutlass, "CUTLASS_BLOCK_FP8_SUPPORTED", True)  # noqa: B010  read at import, where there is no GPU
    return held


def _answer(names: Any, answer: Callable[..., bool]) -> None:
    """Replace functions by name, wherever a module of vLLM has imported them."""
    for module in [module for name, module in sys.modules.items() if name.startswith("vllm")]:
        for name in names:
            if callable(vars(module).get(name)):
                setattr(module, name, answer)


@contextlib.contextmanager
def stated(capability: str) -> Iterator[None]:
    """Let vLLM see a GPU of this capability."""
    held = switch()
    cuda: Any = importlib.import_module("vllm.platforms.cuda").CudaPlatformBase
    version = importlib.import_module("vllm.platforms.interface").DeviceCapability(*map(int, capability.split(".")))

    class Stated(cuda):  # type: ignore[misc]  # the class is vLLM's
        device_name = f"SM {capability}"

        @classmethod
        def get_device_capability(cls, *_: int, **__: int) -> Any:
            return version

        @classmethod
        def get_device_name(cls, *_: int, **__: int) -> str:
            return f"SM {capability}"

    config = importlib.import_module("vllm.config.vllm")
    with (
        mock.patch.object(held, "target", Stated()),
        mock.patch.object(config, "_current_vllm_config", vllm_config()),
    ):
        forget()
        yield


def vllm_config(**kernels: str) -> Any:
    """Return what vLLM's selection reads of its own configuration, at its defaults."""
    chosen = {"moe_backend": "auto", "linear_backend": "auto", "linear_backend_per_quant": None} | kernels
    return types.SimpleNamespace(
        kernel_config=types.SimpleNamespace(**chosen),
        parallel_config=types.SimpleNamespace(enable_dbo=False, enable_eplb=False),
        model_config=types.SimpleNamespace(hf_text_config=types.SimpleNamespace(model_type="deepseek_v4")),
        weight_transfer_config=None,
    )


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Let vLLM find the packages that the image lacks: b12x and HPC."""
    hpc = importlib.import_module("vllm.model_executor.layers.fused_moe.hpc_moe")
    experts = importlib.import_module("vllm.model_executor.layers.fused_moe.b12x")
    linear = importlib.import_module("vllm.model_executor.kernels.linear.scaled_mm.b12x")
    with (
        mock.patch.object(hpc, "has_hpc", return_value=True),
        mock.patch.object(experts, "get_b12x_fused_moe", return_value=_Any()),
        mock.patch.object(linear, "_import_b12x_blockscaled", return_value=_Any()),
    ):
        yield


_remembering: list[Any] = []
"""The functions of vLLM that remember their answers."""


def forget(*, again: bool = False) -> None:
    """Clear what vLLM's functions remember of another platform; unless again, look for new ones first."""
    if not again:
        wrapper = functools._lru_cache_wrapper
        found = [each for each in gc.get_objects() if type(each) is wrapper]
        _remembering[:] = [each for each in found if (each.__module__ or "").startswith("vllm")]
    for each in _remembering:
        each.cache_clear()
