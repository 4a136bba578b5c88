"""
What vLLM's own KV cache planner answers for DeepSeek-V4, on a machine without a GPU.

    python -m qualification.calibration.planner < settings.json > answers.json

The modules are those of models/deepseek_v4/nvidia at their real size, built on the meta device, so no weight exists; each
layer says which cache it wants, and `get_kv_cache_configs` plans it for the memory that a setting names. Standard input
is a list of {"trunk", "mtp", "async", "context", "batched_tokens", "tp", "available_bytes"}, and where it differs "drafter"
("dspark"), "draft_tokens" and "indexer" ("mxfp4"); standard output is the same list, each with the answer.
"""

import contextlib
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dsv4_serve.demo.v4_layouts import config
from dsv4_serve.demo.v4_weights import FLASH as FIVE_LAYERS
from dsv4_serve.demo.v4_weights import Dims
from tests.support import cuda_model

VOCABULARY = 129_280
TARGETS = {  # config.json of the published checkpoints; ratios of the target model, the draft layer has none
    "flash": Dims(
        hidden=4096, heads=64, q_lora=1024, o_groups=8, o_lora=1024, inter=2048, hash_layers=3,
        ratios=(0, 0, *(4, 128) * 20, 4),
    ),
    "pro": Dims(
        hidden=7168, heads=128, q_lora=1536, o_groups=16, o_lora=1024, inter=3072, hash_layers=3, experts=384,
        index_topk=1024, ratios=(128, 128, *(4, 128) * 29, 4),
    ),
    "five-layers": FIVE_LAYERS,
}  # fmt: skip


def engine_config(setting: dict[str, Any], folder: Path) -> Any:
    """The VllmConfig of a setting on CUDA; what vLLM settles otherwise for a CPU, or for one process, is written in."""
    method = setting.get("drafter", "mtp")
    layout = "flash-0731" if method == "dspark" else "native"
    folder.joinpath("config.json").write_text(
        json.dumps(config(layout, TARGETS[setting["trunk"]]) | {"vocab_size": VOCABULARY})
    )
    draft = {"method": method, "num_speculative_tokens": setting.get("draft_tokens", 1)}
    made = cuda_model.on_cuda(
        cuda_model.engine_config(
            folder,
            skip_tokenizer_init=True,
            load_format="dummy",
            kv_cache_dtype="fp8",
            block_size=256,
            max_model_len=setting["context"],
            max_num_batched_tokens=setting["batched_tokens"],
            max_num_seqs=setting.get("sequences", 2),
            speculative_config=draft if setting["mtp"] else None,
            attention_config={"indexer_kv_dtype": setting.get("indexer", "auto")},
        )
    )
    made.scheduler_config.async_scheduling = setting["async"]
    made.scheduler_config.max_num_batched_tokens = setting["batched_tokens"]  # for CPUs vLLM raises it to the context
    made.parallel_config.tensor_parallel_size = setting["tp"]
    return made


@contextlib.contextmanager
def indexer(kind: str) -> Iterator[None]:
    """Let the indexer keep its keys in MXFP4, for which vLLM asks for SM 10.x."""
    from vllm.models.deepseek_v4 import attention

    original, fp4 = getattr(attention, "dsa_indexer_uses_fp4"), kind == "mxfp4"  # noqa: B009  pyright: not exported
    if fp4:
        setattr(attention, "dsa_indexer_uses_fp4", lambda _: fp4)  # noqa: B010  pyright: not exported
    try:
        yield
    finally:
        setattr(attention, "dsa_indexer_uses_fp4", original)  # noqa: B010  pyright: not exported


def build(made: Any, *, mtp: bool) -> list[Any]:
    """Target model and draft head, unloaded, on the meta device; each layer registers its caches in the config."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import initialize_model_parallel, model_parallel_is_initialized
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.models.deepseek_v4.nvidia.dspark import DSparkDeepseekV4ForCausalLM
    from vllm.models.deepseek_v4.nvidia.model import DeepseekV4ForCausalLM
    from vllm.models.deepseek_v4.nvidia.mtp import DeepSeekV4MTP

    size, made.parallel_config.tensor_parallel_size = made.parallel_config.tensor_parallel_size, 1
    if not model_parallel_is_initialized():
        with set_current_vllm_config(made):
            initialize_model_parallel(1, 1)
    with torch.device("meta"):
        models = [initialize_model(made, model_class=DeepseekV4ForCausalLM)]
        if mtp:
            draft = made.speculative_config.draft_model_config
            method = made.speculative_config.method
            drafter = DSparkDeepseekV4ForCausalLM if method == "dspark" else DeepSeekV4MTP
            models.append(initialize_model(made, model_class=drafter, model_config=draft))
    made.parallel_config.tensor_parallel_size = size
    return models


def answer(setting: dict[str, Any]) -> dict[str, Any]:
    """Plan one setting as the engine core does: layout, groups, admission of one request, blocks, capacity."""
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core import kv_cache_utils as planner
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    with tempfile.TemporaryDirectory() as folder:
        made = engine_config(setting, Path(folder))
        with indexer(setting.get("indexer", "auto")):
            build(made, mtp=setting["mtp"])
    caches = get_kv_cache_spec(made)
    layers = made.compilation_config.static_forward_context
    layouts = get_supported_kv_cache_layouts({layers[name].get_attn_backend() for name in caches})
    resolve_kv_cache_layout(made, [[layout.name for layout in layouts]], caches.values())
    groups = planner.get_kv_cache_groups(made, dict(caches))
    needed = planner._max_memory_usage_bytes_from_groups(made, groups)
    block = planner._pool_bytes_per_block(made, groups)
    found = {
        "block_bytes": block,
        "groups": [
            {
                "block_tokens": group.kv_cache_spec.block_size,
                "bytes": group.kv_cache_spec.page_size_bytes,
                "caches": len(group.layer_names),
            }
            for group in groups
        ],
        "blocks_per_request": needed // block,
    }
    try:
        ranks = [caches] * setting["tp"]
        planned = planner.get_kv_cache_configs(made, ranks, [setting["available_bytes"]] * setting["tp"])
    except ValueError as refusal:
        return found | {"refused": str(refusal)}
    tokens, concurrency = planner.get_kv_cache_capacity(made, planner.generate_scheduler_kv_cache_config(planned))
    return found | {"blocks": planned[0].num_blocks, "tokens": tokens, "concurrency": concurrency}


def answer_all(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer for every setting on standard input."""
    gc.disable()  # importing vLLM makes objects that stay
    cuda_model.prepare()
    gc.freeze()
    gc.enable()
    settings = json.load(sys.stdin)
    json.dump([setting | answer(setting) for setting in settings], sys.stdout, indent=1)


if __name__ == "__main__":
    answer_all(answer)
