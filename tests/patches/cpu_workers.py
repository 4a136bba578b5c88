"""
Serve a constructed DeepSeek-V4 on CPU with two workers, all of it in spare processes; then kill a worker.

    python -m tests.patches.cpu_workers RESULT.json

The result has the processes that were launched in advance and those that served, what was answered and accepted, and
what was left. The vLLM that serves is the first on the path. On CPUs it binds workers to cores, for which it spawns
them; here it does not, as on GPUs.
"""

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import psutil

from tests.patches.cpu_drafts import COUNTERS, DIMS, OPTIONS

WORKERS = 2
TOKENS = 8
PROMPTS = ([2, 9, 16, 23, 30], [5, 12, 19])
SETTINGS = {
    "VLLM_SPARE_PROCESSES": f"1,{WORKERS}",
    "VLLM_USE_BREAKABLE_CUDAGRAPH": "1",  # vLLM sets it for DeepSeek-V4, after spares have imported
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def measure(folder):
    from vllm import LLM, SamplingParams
    from vllm.model_executor.models import registry
    from vllm.v1.engine.exceptions import EngineDeadError

    from dsv4_serve.demo.deepseek_v4 import Dims, write

    spares = importlib.import_module("vllm.spare_process")._spares
    core = psutil.Process(spares[0].pid)
    answer = write(folder, "bf16", Dims(**DIMS))
    registry._run_in_subprocess = lambda inspect: inspect()  # there is no GPU that it could initialize; it takes 8 s
    launched = [core, *core.children()]
    options: dict[str, Any] = {
        **OPTIONS,
        "tensor_parallel_size": WORKERS,
        "distributed_executor_backend": "mp",
        "speculative_config": {"method": "mtp", "num_speculative_tokens": 1},
    }
    engine = LLM(str(folder), **options)
    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)

    def ask():
        return engine.generate([{"prompt_token_ids": ids} for ids in PROMPTS], sampling, use_tqdm=False)

    expected = [answer.continuation(prompt[-1], TOKENS) for prompt in PROMPTS]
    wrong = sum(list(out.outputs[0].token_ids) != want for out, want in zip(ask(), expected, strict=True))
    values: dict[str, Any] = {metric.name: getattr(metric, "value", None) for metric in engine.get_metrics()}
    serving = {process.pid: process.name() for process in psutil.Process().children(recursive=True)}
    found = {"launched": [process.pid for process in launched], "serving": serving, "wrong": wrong}
    found |= {name: values[f"vllm:spec_decode_num_{counter}"] for name, counter in COUNTERS.items()}
    shared = [path for pid in serving for path in shared_memory(pid)]
    try:
        launched[-1].kill()
        ask()
    except EngineDeadError as error:
        found["error"] = str(error)
    finally:
        found["left"] = [process.pid for process in psutil.wait_procs(launched, timeout=120)[1]]
        for path in shared:  # of workers that ended without a chance to remove it
            path.unlink(missing_ok=True)
    return found


def shared_memory(pid):
    """Return the files of shared memory by which vLLM's workers on a CPU add up."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[-1]) for line in maps if "/dev/shm/vllm_dist_" in line}


if __name__ == "__main__":
    os.environ |= SETTINGS
    try:
        with tempfile.TemporaryDirectory() as scratch:
            Path(sys.argv[1]).write_text(json.dumps(measure(Path(scratch, "model"))))
    except BaseException:
        traceback.print_exc()
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("VLLM"):  # not the resource tracker, which removes their shared memory
                process.kill()
    finally:
        os._exit(0)  # taking vLLM's modules apart takes seconds, and does not end where its engine has died
