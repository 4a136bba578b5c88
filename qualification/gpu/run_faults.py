"""
Faults on GPUs with known-answer checkpoints: what the supervisor notices, when, and what is left afterwards.

    python -m qualification.gpu.run_faults --out faults --work checkpoints --tp 2 --jobs good scrambled degraded removed drained

Writes `faults.json` and prints the same as a table. Jobs run side by side; each has GPU memory of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pynvml

from dsv4_serve.demo.deepseek_v4 import FLASH, write
from dsv4_serve.entrypoint.plan import DRAFT_TOKENS
from qualification.gpu import this_host
from qualification.gpu.served import FLAGS, SPECULATIVE
from tests.support.replica import Late, Replica, replica

Result = dict[str, Any]
LIVE_GRACE = 30


def phases(running: Replica) -> Result:
    state = json.loads(running.ask("/startupz?format=json")[1])
    return {"caches": state["caches"], "phases": {name: round(s, 1) for name, s in state["phases"].items()}}


def gate(running: Replica) -> str:
    return next((line for line in running.messages() if "draft gate" in line), "")


def ended(running: Replica, seconds: float) -> Result:
    status, _ = running.until_ended(seconds)
    return {"status": status, "exit": json.loads((running.run_folder / "last-exit.json").read_text())}


def gone(pids: list[int]) -> Result:
    """GPU memory still held by processes of the replica, by NVML, and the ones that are still there."""
    held = 0
    for index in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        held += sum(p.usedGpuMemory or 0 for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device) if p.pid in pids)
    return {"left": [pid for pid in pids if Path(f"/proc/{pid}").exists()], "gpu_bytes_held": held}


def good(running: Replica) -> Result:
    """Stop one worker while streams run, which leaves the other one in a collective."""
    ready = running.until_ready(500)
    found = phases(running)
    stream = running.stream(3500)
    stream.began.wait(60)
    time.sleep(2)
    pids = [process.pid for process in running.family()]
    titles = [process.name() for process in running.family()]
    running.member("VLLM::Worker_TP1" if len(pids) > 3 else "VLLM::EngineCore").suspend()
    stopped = time.monotonic()
    running.until(lambda: not running.ready(), 60, "not ready")
    unready = time.monotonic() - stopped
    result = ended(running, 200)
    took = time.monotonic() - stopped
    time.sleep(1)
    stacks = (running.run_folder / "stacks.txt").read_text()
    return {
        "ready_after": ready, **found, "gate": gate(running), "titles": titles, "unready_after": unready,
        "ended_after": took, **result, **gone(pids), "stacks_lines": len(stacks.splitlines()), "stacks": stacks[:6000],
    }  # fmt: skip


def idle(running: Replica) -> Result:
    """Stop one worker while nothing runs."""
    ready = running.until_ready(500)
    time.sleep(3)
    pids = [process.pid for process in running.family()]
    running.member("VLLM::Worker_TP1" if len(pids) > 3 else "VLLM::EngineCore").suspend()
    stopped = time.monotonic()
    running.until(lambda: not running.ready(), 60, "not ready")
    unready = time.monotonic() - stopped
    result = ended(running, 200)
    return {
        "ready_after": ready,
        "unready_after": unready,
        "ended_after": time.monotonic() - stopped,
        **result,
        **gone(pids),
    }


def refused(running: Replica) -> Result:
    began = time.monotonic()
    result = ended(running, 500)
    return {"ended_after": time.monotonic() - began, "gate": gate(running), **result}


def degraded(running: Replica) -> Result:
    ready = running.until_ready(560)
    drafts = json.loads(running.ask("/plan")[1])["settings"][DRAFT_TOKENS]["value"]
    return {"ready_after": ready, "speculates": drafts > 0, "said": running.messages()}


def drained(running: Replica) -> Result:
    """200 streams, then SIGTERM."""
    ready = running.until_ready(500)
    streams = [running.stream(400, f"Story {number}:") for number in range(200)]
    time.sleep(3)
    running.stop()
    began = time.monotonic()
    result = ended(running, 180)
    whole = sum(stream.done and stream.got == stream.tokens and not stream.error for stream in streams)
    return {
        "ready_after": ready,
        "whole": whole,
        "streams": len(streams),
        "ended_after": time.monotonic() - began,
        **result,
    }


JOBS: dict[str, tuple[str, Callable[[Replica], Result], dict[str, str]]] = {
    "good": ("good", good, {}),
    "idle": ("good", idle, {}),
    "scrambled": ("scrambled", refused, {}),
    "degraded": ("scrambled", degraded, {"DSV4_GATE_BELOW_FLOOR": "degrade"}),
    "removed": ("removed", refused, {}),
    "drained": ("good", drained, {"MAX_NUM_SEQS": "64"}),
}


def run(name: str, options: argparse.Namespace, results: dict[str, Result]) -> None:
    mtp, job, env = JOBS[name]
    folder = Path(options.out) / name
    flags = [*FLAGS, "--tensor-parallel-size", str(options.tp), "--speculative-config", SPECULATIVE]
    if "MAX_NUM_SEQS" in env:
        at = flags.index("--max-num-seqs")
        del flags[at : at + 2]
    argv = ["--profile", "known-answer", "--model", f"w4a16={Path(options.work) / mtp}", *flags]
    grace: dict[str, Any] = {"DSV4_SUPERVISE_LIVE_GRACE": str(LIVE_GRACE), "DSV4_GATE_TOKENS": "32"}
    try:
        with replica(folder, *argv, model_name="deepseek-v4-flash", **{**grace, **env}) as running:
            results[name] = {"ok": True, **job(running)}
    except (Late, psutil.Error, OSError, LookupError, ValueError) as error:
        results[name] = {"ok": False, "error": str(error)[-3000:]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults on GPUs.")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", required=True, help="directory for checkpoints, 3 GB each")
    parser.add_argument("--tp", type=int, default=2)
    options = parser.parse_args()
    os.environ["DSV4_PROFILES"] = str(Path(__file__).parent / "profiles")
    pynvml.nvmlInit()
    for mtp in sorted({JOBS[name][0] for name in options.jobs}):
        write(Path(options.work) / mtp, "w4a16", FLASH, mtp)
    results: dict[str, Result] = {}
    threads = [threading.Thread(target=run, args=(name, options, results)) for name in options.jobs]
    for thread in threads:
        thread.start()
        time.sleep(1)
    for thread in threads:
        thread.join()
    facts = {**this_host.facts(), "tp": options.tp, "live_grace": LIVE_GRACE}
    (Path(options.out) / "faults.json").write_text(json.dumps(facts | {"jobs": results}, indent=2) + "\n")
    for name, result in results.items():
        print(name, json.dumps({k: v for k, v in result.items() if k != "stacks"})[:1500])
    return 0 if all(result["ok"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
