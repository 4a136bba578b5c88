"""
What vLLM's own scheduler keeps in host memory of a DeepSeek-V4 conversation, and takes back, without a GPU.

    python -m qualification.calibration.offloading < settings.json > answers.json

The scheduler, its KV cache manager and its offloading connector are vLLM's; caches are planned as `planner` does, and
instead of a model there are tokens by chance, every draft refused. Standard input is a list of what `planner` takes, with
"gib" of host memory, "prompt" and "output" tokens, and where it differs "extra" (kv_connector_extra_config). Standard
output is the same list, each with the blocks of host memory, those that one turn stores, the tokens that come back when
the next turn repeats the first one after the GPU has lost it, and those that were there before the first: a folder of a
file tier keeps them from one process to the next.
"""

import random
import tempfile
import time
from pathlib import Path
from typing import Any

from qualification.calibration import planner

NEXT_QUESTION = 200
QUIET, PAUSE = 3, 0.005
"""Steps after a request's end in which its last copies are made, and seconds for files in a step without tokens."""


def engine(setting: dict[str, Any]) -> tuple[Any, Any]:
    """A scheduler with caches of full size and, with "gib", the connector of --kv-offloading-size; what hashes its blocks."""
    from vllm.config import KVTransferConfig
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    with tempfile.TemporaryDirectory() as folder:
        made = planner.engine_config(setting, Path(folder))
        with planner.indexer(setting.get("indexer", "auto")):
            planner.build(made, mtp=setting["mtp"])
    made.model_config.model = "/models/calibration"  # files are kept by this name
    made.cache_config.enable_prefix_caching = made.scheduler_config.enable_chunked_prefill = True
    if "gib" in setting:
        made.cache_config.kv_offloading_size = setting["gib"]
        made.kv_transfer_config = KVTransferConfig(kv_connector_extra_config=dict(setting.get("extra", {})))
        made._post_init_kv_transfer_config()
    made.parallel_config.distributed_executor_backend = "mp"
    made.parallel_config.world_size = setting["tp"]
    caches = get_kv_cache_spec(made)
    layers = made.compilation_config.static_forward_context
    layouts = get_supported_kv_cache_layouts({layers[name].get_attn_backend() for name in caches})
    resolve_kv_cache_layout(made, [[layout.name for layout in layouts]], caches.values())
    ranks = setting["tp"]
    planned = kv_cache_utils.get_kv_cache_configs(made, [caches] * ranks, [setting["available_bytes"]] * ranks)
    config = kv_cache_utils.generate_scheduler_kv_cache_config(planned)
    made.cache_config.num_gpu_blocks = config.num_blocks
    block, hashed = kv_cache_utils.resolve_kv_cache_block_sizes(config, made)
    by_content = get_hash_fn_by_name("sha256")
    kv_cache_utils.init_none_hash(by_content)
    scheduler = Scheduler(made, config, StructuredOutputManager(made), block, hash_block_size=hashed, log_stats=True)
    return scheduler, kv_cache_utils.get_request_block_hasher(hashed, by_content)


def serve(
    scheduler: Any, hasher: Any, tokens: list[int], output: int, by_chance: random.Random
) -> tuple[Any, int, int]:
    """Serve one request; return it, the blocks that were copied to host memory, and the tokens that came from there."""
    from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
    from vllm.sampling_params import SamplingParams
    from vllm.v1.outputs import DraftTokenIds, KVConnectorOutput, ModelRunnerOutput
    from vllm.v1.request import Request

    request = Request(
        f"{len(tokens)}-{by_chance.random()}",
        tokens,
        SamplingParams(max_tokens=output, ignore_eos=True),
        None,
        block_hasher=hasher,
    )
    workers, stored, restored, quiet = scheduler.connector.scheduler.config.num_workers, 0, 0, 0
    scheduler.add_request(request)
    while quiet < QUIET:
        step = scheduler.schedule()
        copies = step.kv_connector_metadata
        done = OffloadingWorkerMetadata()
        done.completed_jobs.update(dict.fromkeys([*copies.store_jobs, *copies.load_jobs], workers))
        stored += sum(sum(job.src_spec.group_sizes) for job in copies.store_jobs.values())
        if request.prefill_stats:
            restored = request.prefill_stats.num_external_cached_tokens
        received = {job.req_id for job in copies.load_jobs.values()}
        names = list(step.num_scheduled_tokens)
        time.sleep(0 if names else PAUSE)
        answers = [
            [by_chance.randrange(1000, 100_000)] if request.num_computed_tokens >= request.num_prompt_tokens else []
            for _ in names
        ]
        scheduler.update_from_output(
            step,
            ModelRunnerOutput(
                names,
                {name: at for at, name in enumerate(names)},
                answers,
                kv_connector_output=KVConnectorOutput(finished_recving=received, kv_connector_worker_meta=done),
            ),
        )
        drafts = scheduler.num_spec_tokens
        if request.request_id in scheduler.requests and names and drafts:
            scheduler.update_draft_token_ids(DraftTokenIds(names, [[7] * drafts if one else [] for one in answers]))
        quiet += request.request_id not in scheduler.requests and not scheduler.connector.has_pending_push_work()
    return request, stored, restored


def answer(setting: dict[str, Any]) -> dict[str, Any]:
    """Serve a turn, take it from the GPU, serve the next one."""
    from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

    setattr(CPUOffloadingSpec, "_uses_shared_region", lambda _: True)  # noqa: B010  pyright: as on CUDA
    by_chance = random.Random(1)
    scheduler, hasher = engine(setting)
    manager = scheduler.connector.scheduler.manager
    manager = getattr(manager, "primary_tier", manager)  # with tiers, that of host memory
    prompt = [by_chance.randrange(1000, 100_000) for _ in range(setting["prompt"])]
    first, stored, before = serve(scheduler, hasher, prompt, setting["output"], by_chance)
    assert scheduler.kv_cache_manager.reset_prefix_cache()
    question = [by_chance.randrange(1000, 100_000) for _ in range(NEXT_QUESTION)]
    _, _, restored = serve(scheduler, hasher, [*prompt, *first.output_token_ids, *question], 1, by_chance)
    scheduler.connector.shutdown()
    return {"host_blocks": manager._num_chunks, "stored": stored, "restored": restored, "before": before}


if __name__ == "__main__":
    planner.answer_all(answer)
