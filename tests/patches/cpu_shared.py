"""
Ask the real DeepSeek-V4 on CPU prompts that share a beginning, as `run_layouts` asks them on GPUs.

    python -m tests.patches.cpu_shared RESULT.json

The result counts wrong answers and drafts, and has how many tokens of each prompt the prefix cache had.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

SHARED = 3 * 256 + 31
ANSWER = 8
OPTIONS: dict[str, Any] = {
    "enforce_eager": True,
    "max_model_len": 2048,
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1024,
    "kv_cache_memory_bytes": 1 << 28,
    "disable_log_stats": False,
}


def measure(folder: Path) -> dict[str, Any]:
    from vllm import LLM, SamplingParams
    from vllm.model_executor.models import registry

    from dsv4_serve.demo.deepseek_v4 import TINY, write
    from dsv4_serve.demo.v4_text import reaching_walk
    from qualification.gpu.shared import beginning

    walk = reaching_walk(TINY.vocab)
    assert walk.reach
    asked = beginning(write(folder, "native", TINY, "good", walk), walk.reach, SHARED, ANSWER).questions
    setattr(registry, "_run_in_subprocess", lambda inspect: inspect())  # noqa: B010  no GPU that it could initialize
    engine = LLM(str(folder), speculative_config={"method": "mtp", "num_speculative_tokens": 1}, **OPTIONS)
    sampling = SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    found: dict[str, Any] = {"wrong": 0, "cached": []}
    for one in asked:
        [output] = engine.generate([{"prompt_token_ids": list(one.prompt)}], sampling, use_tqdm=False)
        found["wrong"] += tuple(output.outputs[0].token_ids) != one.answer
        found["cached"].append(output.num_cached_tokens)
    for metric in engine.get_metrics():
        for name in ("draft", "accepted"):
            if metric.name == f"vllm:spec_decode_num_{name}_tokens":
                found["drafted" if name == "draft" else name] = getattr(metric, "value", None)
    return found


if __name__ == "__main__":
    os.environ |= {"TRITON_INTERPRET": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with tempfile.TemporaryDirectory() as scratch:
        Path(sys.argv[1]).write_text(json.dumps(measure(Path(scratch))))
    os._exit(0)  # taking vLLM's modules apart takes seconds
