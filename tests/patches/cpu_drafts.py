"""
Serve constructed checkpoints on CPU, one after the other in this process, and count right and accepted tokens.

    python cpu_drafts.py RESULT.json LAYOUT:MTP:DRAFTED[:by-load|:fp8-shared]...

DRAFTED is the number of draft tokens per step, with `by-load` of one request alone: SCHEDULE says how many of several.
With `fp8-shared`, BF16 shared experts become FP8 while they load, as the page about speed says.
The result is {case: counts, or {"error": ...}}; with `by-load`, counts of each load by the number of its requests. The
vLLM that serves is the first on the path.
"""

import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

TOKENS = {"1": 8}  # by draft tokens per step, so that each case drafts in several steps
MOST_TOKENS = 16
COUNTERS = {"drafts": "drafts", "drafted": "draft_tokens", "accepted": "accepted_tokens"}
PROMPT_LENGTHS = (5, 130)  # 130 is longer than the window, and than the larger compression ratio
SCHEDULE = [[1, 1, 3], [2, 3, 1], [4, 4, 0]]  # from so many requests to so many, and their draft tokens
LOADS = (1, 2, 4)
DIMS: dict[str, Any] = {
    "hidden": 256,  # with `vocab` the fewest that the constructed weights take
    "vocab": 64,
    "experts": 64,  # the fewest that vLLM's CPU router takes
    "ratios": (0, 4, 128),  # each kind of attention layer stands once
    "max_positions": 16_384,  # vLLM computes a table with a row for each
}
FP8_SHARED = {"quantization_config": {"targets": {r"re:.*\.shared_experts\..*": "fp8_per_block"}}}
OPTIONS = {
    "enforce_eager": True,
    "max_model_len": 512,
    "max_num_seqs": 2,
    "kv_cache_memory_bytes": 1 << 26,
    "disable_log_stats": False,
}


def measure(case, folder):
    from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

    try:
        return served(*case.split(":"), folder=folder)
    except Exception as error:  # a refusal is a result
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        destroy_model_parallel()
        destroy_distributed_environment()
        gc.collect()


def served(layout, mtp, drafted, how="", *, folder):
    from vllm import LLM, SamplingParams
    from vllm.model_executor.models import registry

    from dsv4_serve.demo.deepseek_v4 import LAYOUTS, Dims, write

    answer = write(folder, layout, Dims(**DIMS), mtp)
    registry._run_in_subprocess = lambda inspect: inspect()  # there is no GPU that it could initialize; it takes 8 s
    gc.unfreeze = lambda: None  # vLLM would go through all that it imported when a case is over
    by_load = how == "by-load"
    speculative = {"method": LAYOUTS[layout].drafter, "num_speculative_tokens": int(drafted)}
    if by_load:
        speculative["num_speculative_tokens_per_batch_size"] = SCHEDULE
    gc.freeze()  # what vLLM imported is not gone through again when a case is over
    tokens = TOKENS.get(drafted, MOST_TOKENS)
    options: dict[str, Any] = OPTIONS | ({"max_num_seqs": max(LOADS)} if by_load else {})
    options |= FP8_SHARED if how == "fp8-shared" else {}
    engine = LLM(str(folder), speculative_config=speculative, **options)
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)

    def counters():
        values: dict[str, Any] = {metric.name: getattr(metric, "value", None) for metric in engine.get_metrics()}
        return {name: values[f"vllm:spec_decode_num_{counter}"] for name, counter in COUNTERS.items()}

    def asked(lengths):
        prompts = [[2 + (7 * n + length) % (DIMS["vocab"] - 2) for n in range(length)] for length in lengths]
        before = counters()
        outputs = engine.generate([{"prompt_token_ids": p} for p in prompts], sampling, use_tqdm=False)
        expected = [answer.continuation(prompt[-1], tokens) for prompt in prompts]
        wrong = sum(list(out.outputs[0].token_ids) != want for out, want in zip(outputs, expected, strict=True))
        return {"wrong": wrong} | {name: count - before[name] for name, count in counters().items()}

    loads = {load: range(5, 5 + load) for load in LOADS}
    found = {load: asked(lengths) for load, lengths in loads.items()} if by_load else asked(PROMPT_LENGTHS)
    engine.llm_engine.engine_core.shutdown()
    return found


if __name__ == "__main__":
    gc.disable()  # importing vLLM makes objects that stay; what a case leaves is collected after it
    os.environ |= {"TRITON_INTERPRET": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with tempfile.TemporaryDirectory() as scratch:
        found = {case: measure(case, Path(scratch, case)) for case in sys.argv[2:]}
    Path(sys.argv[1]).write_text(json.dumps(found))
    os._exit(0)  # taking vLLM's modules apart takes seconds
