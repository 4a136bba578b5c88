"""
DeepSeek-V4's CUDA modules, built and loaded by vLLM's own code on a machine without a GPU.

Only what needs a device is replaced: streams, and the choice of kernels (what an H200 chooses). Parameters,
quantization schemes, names and loaders are the real ones. Nothing is computed.
"""

import functools
import importlib
import json
import socket
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import torch

from dsv4_serve.demo.deepseek_v4 import Dims, write

SMALL = Dims(experts=8, vocab=64, ratios=(0, 4, 128), max_positions=16_384)  # vLLM computes a row for each position
DRAFT = len(SMALL.ratios)  # the layer index that vLLM builds the draft head with


class _Nothing:
    """A stream, an event or a kernel that is never used."""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def input_quant_key(self) -> None:
        return None


@functools.cache
def checkpoint(layout: str, mtp: str = "good") -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"{layout}-{mtp}-"))
    write(path, layout, SMALL, mtp)
    return path


@functools.cache
def prepare() -> None:
    """Replace streams and kernel choices, and start a process group of one."""
    from vllm.distributed import init_distributed_environment
    from vllm.model_executor.kernels import linear
    from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as plain
    from vllm.model_executor.layers.fused_moe.oracle.int_wna16 import WNA16MoEBackend
    from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend
    from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
    from vllm.model_executor.layers.quantization import modelopt, mxfp4
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
        compressed_tensors_moe_w4a4_nvfp4 as ct_nvfp4,
    )
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
        compressed_tensors_moe_wna16 as ct_int4,
    )
    from vllm.model_executor.models import registry
    from vllm.models.deepseek_v4.nvidia import flashmla

    registry._run_in_subprocess = lambda inspect: inspect()  # there is no GPU that it could initialize; it takes 8 s
    setattr(flashmla, "compute_fp8_einsum_recipe", lambda: ((1, 128, 128), False))  # noqa: B010  pyright: not exported
    torch.cuda.Stream = torch.cuda.Event = _Nothing
    torch.set_default_dtype(torch.bfloat16)
    linear.choose_scaled_mm_linear_kernel = lambda *_, **__: _Nothing
    for module, name, backend in (
        (plain, "select_unquantized_moe_backend", UnquantizedMoeBackend.TRITON),
        (mxfp4, "select_deepseek_v4_mxfp4_moe_backend", Mxfp4MoeBackend.HUMMING),
        (modelopt, "select_nvfp4_moe_backend", NvFp4MoeBackend.HUMMING),
        (ct_nvfp4, "select_nvfp4_moe_backend", NvFp4MoeBackend.HUMMING),
        (ct_int4, "select_wna16_moe_backend", WNA16MoEBackend.HUMMING),
    ):
        setattr(module, name, lambda *_, chosen=backend, **__: (chosen, None))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    init_distributed_environment(1, 0, f"tcp://127.0.0.1:{port}", 0, backend="gloo")


def engine_config(checkpoint: Path, **options: Any) -> Any:
    """The VllmConfig that the engine builds for a checkpoint with its drafter."""
    from vllm.config import vllm as configs
    from vllm.engine.arg_utils import EngineArgs

    described = json.loads((checkpoint / "config.json").read_text())
    method = "dspark" if "dspark_block_size" in described else "mtp"
    speculative = {"method": method, "num_speculative_tokens": 1}
    if method == "dspark":  # where Triton runs, vLLM takes the V2 runner, the only one with DSpark
        setattr(configs, "HAS_TRITON", True)  # noqa: B010  pyright: not exported
    arguments = {
        "max_model_len": 512,
        "max_num_batched_tokens": 256,
        "max_num_seqs": 2,
        "speculative_config": speculative,
    }
    return EngineArgs(model=str(checkpoint), enforce_eager=True, **(arguments | options)).create_engine_config()


def on_cuda(config: Any) -> Any:
    """Give a V4 FP8 checkpoint the quantization class that CUDA uses; on a CPU vLLM chooses another one."""
    if config.model_config.quantization != "deepseek_v4_fp8":
        return config
    if "vllm.models.deepseek_v41" not in sys.modules:
        import vllm.models

        package = types.ModuleType("vllm.models.deepseek_v41")
        package.__path__ = [str(Path(vllm.models.__path__[0]) / "deepseek_v41")]
        sys.modules["vllm.models.deepseek_v41"] = package
    quant = importlib.import_module("vllm.models.deepseek_v41.quant_config").DeepseekV4FP8Config
    config.quant_config = quant.from_config(config.model_config.hf_config.quantization_config)
    return config


def groups(config: Any) -> None:
    """Start the groups of one process that modules ask for their sizes."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import initialize_model_parallel, model_parallel_is_initialized

    if not model_parallel_is_initialized():
        with set_current_vllm_config(config):
            initialize_model_parallel(1, 1)


def build(config: Any) -> tuple[Any, Any]:
    """Target model and draft head, unloaded, built in the engine's order from one config."""
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.models.deepseek_v4.nvidia.dspark import DSparkDeepseekV4ForCausalLM
    from vllm.models.deepseek_v4.nvidia.model import DeepseekV4ForCausalLM
    from vllm.models.deepseek_v4.nvidia.mtp import DeepSeekV4MTP

    groups(config)
    target = initialize_model(config, model_class=DeepseekV4ForCausalLM)
    drafter = {"mtp": DeepSeekV4MTP, "dspark": DSparkDeepseekV4ForCausalLM}[config.speculative_config.method]
    draft = config.speculative_config.draft_model_config
    return target, initialize_model(config, model_class=drafter, model_config=draft)


@functools.cache
def built(layout: str, mtp: str = "good") -> tuple[Any, Any, Any]:
    """Target model, draft head and config of a constructed checkpoint."""
    prepare()
    config = on_cuda(engine_config(checkpoint(layout, mtp)))
    return *build(config), config


def scheme(layer: Any) -> str:
    """The class that stands for a layer's quantization scheme."""
    method = type(layer.quant_method).__name__
    return type(layer.scheme).__name__ if method == "CompressedTensorsLinearMethod" else method


def load(model: Any, config: Any) -> set[str]:
    """Stream the checkpoint through the model's own loader; returns the names of the loaded parameters."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    with set_current_vllm_config(config):
        weights = DefaultModelLoader(config.load_config).get_all_weights(config.model_config, model)
        names: set[str] = model.load_weights(weights)
    return names


def refusal(model: Any, config: Any, says: str) -> str:
    """Load weights that are incomplete; return the error, which has to say so."""
    try:
        load(model, config)
        message = "incomplete weights were loaded in silence"
    except ValueError as error:
        message = str(error)
    assert says in message, message
    return message
