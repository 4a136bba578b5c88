"""
Serve constructed checkpoints on CPU, one after the other in this process, and count right and accepted tokens.

    python cpu_drafts.py RESULT.json LAYOUT:MTP:DRAFTED...

DRAFTED is the number of draft tokens per step. The result is {case: counts, or {"error": ...}}. The vLLM that serves is
the first on the path.
"""

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

TOKENS = {"1": 8}  # by draft tokens per step, so that each case drafts in several steps
MOST_TOKENS = 16
PROMPT_LENGTHS = (5, 130)  # 130 is longer than the window, and than the larger compression ratio
POSITIONS = 16_384  # vLLM computes a table with a row for each
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


def served(layout, mtp, drafted, folder):
    from vllm import LLM, SamplingParams
    from vllm.model_executor.models import registry

    from dsv4_serve.demo.deepseek_v4 import LAYOUTS, Dims, write

    # 64 experts are the fewest that vLLM's CPU router takes; each kind of attention layer stands once.
    answer = write(folder, layout, Dims(experts=64, ratios=(0, 4, 128), max_positions=POSITIONS), mtp)
    registry._run_in_subprocess = lambda inspect: inspect()  # there is no GPU that it could initialize; it takes 8 s
    speculative = {"method": LAYOUTS[layout].drafter, "num_speculative_tokens": int(drafted)}
    gc.freeze()  # what vLLM imported is not gone through again when a case is over
    tokens = TOKENS.get(drafted, MOST_TOKENS)
    engine = LLM(str(folder), speculative_config=speculative, **OPTIONS)
    prompts = [[2 + (7 * n + length) % 126 for n in range(length)] for length in PROMPT_LENGTHS]
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    outputs = engine.generate([{"prompt_token_ids": p} for p in prompts], sampling, use_tqdm=False)
    counters = {metric.name: getattr(metric, "value", None) for metric in engine.get_metrics()}
    engine.llm_engine.engine_core.shutdown()
    expected = [answer.continuation(prompt[-1], tokens) for prompt in prompts]
    return {
        "wrong": sum(list(out.outputs[0].token_ids) != want for out, want in zip(outputs, expected, strict=True)),
        "drafted": counters["vllm:spec_decode_num_draft_tokens"],
        "accepted": counters["vllm:spec_decode_num_accepted_tokens"],
    }


if __name__ == "__main__":
    gc.disable()  # importing vLLM makes objects that stay; what a case leaves is collected after it
    os.environ |= {"TRITON_INTERPRET": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with tempfile.TemporaryDirectory() as scratch:
        found = {case: measure(case, Path(scratch, case)) for case in sys.argv[2:]}
    Path(sys.argv[1]).write_text(json.dumps(found))
    os._exit(0)  # taking vLLM's modules apart takes seconds
