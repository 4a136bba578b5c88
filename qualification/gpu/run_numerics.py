"""
Compare random checkpoints of Flash's widths with the reference, on the GPUs of this host.

    python -m qualification.gpu.run_numerics --out OUT --work FOLDER --jobs native w4a16@2 native@2+ep native+graphs

A job is LAYOUT[@TP][+ep][+graphs][+fp8]; the last gives Humming's experts FP8 inputs in groups of 128, as plans for
H200 have them, and `+fp8token` one scale a token. Several run at a time; those of one rank are spread over the GPUs.
Each adds a line to OUT/numerics.jsonl as soon as it is there, with the figures of the comparison, and to
OUT/numerics.zip what the engine answered and the end of its log. No job begins after the deadline, and one that runs
then is stopped.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dsv4_serve.demo.numerics import answers, checkpoint, compare, golden
from dsv4_serve.demo.v4_layouts import LAYOUTS
from qualification.gpu import fp8_experts, this_host
from qualification.gpu.run_layouts import backends

W4A4 = ("nvfp4", "pro", "flash-nvfp4", "flash-0731-nvfp4")
LEAST, LOG = 40.0, 60_000
"""Seconds without which no job begins; bytes of its log that are kept."""
ENGINE: dict[str, Any] = {
    "kv_cache_dtype": "fp8",
    "block_size": 256,
    "tokenizer_mode": "deepseek_v4",
    "gpu_memory_utilization": 0.1,
    "kv_cache_memory_bytes": 2 << 30,
}
"""As the product's plans have it; several engines share a GPU."""


@dataclass(frozen=True)
class Place:
    """Where everything is, and when the time is over."""

    out: Path
    work: Path
    shipped: golden.Golden
    size: str
    until: float
    common: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def named(self, job: str) -> str:
        """Return the name of a job's result file, for `python -m qualification.gpu.unfold`."""
        layout, options = arguments(job)
        parts = [layout, *job.split("+")[1:]]
        vllm = self.common.get("versions", {}).get("vllm", "")
        return f"{'-'.join(parts)}-{this_host.hardware()[0]}-tp{options['tensor_parallel_size']}-vllm{vllm}.json"

    def keep(self, job: str, found: dict[str, Any]) -> None:
        """Print a job's figures, and keep them with what the engine answered and logged."""
        with self.lock:
            line = json.dumps({"file": self.named(job), "job": job} | found | self.common)
            print(json.dumps({"job": job} | found), flush=True)
            with (self.out / "numerics.jsonl").open("a") as file:
                file.write(line + "\n")
            with zipfile.ZipFile(self.out / "numerics.zip", "a", zipfile.ZIP_DEFLATED) as kept:
                if (rows := self.work / f"{job}.npz").exists():
                    kept.write(rows, rows.name)
                if (log := self.work / f"{job}.log").exists():
                    kept.writestr(log.name, log.read_bytes()[-LOG:])


def main() -> None:
    """Write the checkpoints, and run the jobs."""
    parser = argparse.ArgumentParser(description="Compare random checkpoints with the reference, on GPUs.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", nargs="+", default=list(LAYOUTS), metavar="JOB")
    parser.add_argument("--gpus", default=visible(), help="indexes, 0,1 (default: every GPU that is visible)")
    parser.add_argument("--parallel", type=int, default=4, help="jobs at a time")
    parser.add_argument("--deadline", type=float, default=540, help="seconds for everything")
    parser.add_argument("--patches", type=Path, help="JSON file by `dsv4 patch report`")
    parser.add_argument("--size", choices=("flash", "tiny"), default="flash", help="tiny is to try this program")
    options = parser.parse_args()
    until = time.monotonic() + options.deadline
    for job in options.jobs:
        arguments(job)
    for folder in (options.out, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    common = this_host.facts()
    if options.patches:
        common["patches"] = json.loads(options.patches.read_text())
    place = Place(options.out, options.work, tables(options.size), options.size, until, common)
    run(place, options.jobs, options.gpus.split(","), options.parallel)


def visible() -> str:
    """Return the GPUs that may be used."""
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout.splitlines()
    except OSError:
        listed = []
    return ",".join(str(number) for number in range(max(len(listed), 1)))


def tables(size: str) -> golden.Golden:
    """Return the reference's tables, computed here when none are shipped."""
    try:
        return golden.load(size)
    except FileNotFoundError:
        return answers.golden(size)


def run(place: Place, jobs: Sequence[str], gpus: Sequence[str], parallel: int) -> None:
    """Run so many jobs side by side, in order; one of several ranks takes all GPUs."""
    free: queue.Queue[str] = queue.Queue()
    for slot in range(parallel):
        free.put(gpus[slot % len(gpus)])

    def one(job: str) -> None:
        gpu = free.get()
        try:
            place.keep(job, measured(job, place, gpu if ranks(job) == 1 else ",".join(gpus)))
        except Exception as error:
            place.keep(job, {"result": "failed", "message": repr(error)})
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(one, jobs))


def ranks(job: str) -> int:
    """Return how many GPUs a job takes."""
    return int(arguments(job)[1]["tensor_parallel_size"])


def arguments(job: str) -> tuple[str, dict[str, Any]]:
    """Return a job's layout and its arguments of `vllm.LLM`."""
    name, *parts = job.split("+")
    layout, _, size = name.partition("@")
    if layout not in LAYOUTS or {*parts} - {"ep", "graphs", *fp8_experts.ACTIVATIONS}:
        raise SystemExit(f"job {job!r}: expected LAYOUT[@TP][+ep][+graphs][+fp8], with {', '.join(LAYOUTS)}")
    return layout, {
        "tensor_parallel_size": int(size or 1),
        "enable_expert_parallel": "ep" in parts,
        "enforce_eager": "graphs" not in parts,
    }


def variables(job: str) -> dict[str, str]:
    """Return the environment of a job, beside that of this program."""
    endings = [part for part in job.split("+")[1:] if part in fp8_experts.ACTIVATIONS]
    return fp8_experts.variables(endings[-1] if endings else None)


def measured(job: str, place: Place, gpus: str) -> dict[str, Any]:
    """Serve one checkpoint, ask, and compare."""
    layout, options = arguments(job)
    env = variables(job)
    remaining = place.until - time.monotonic()
    if remaining < LEAST:
        return {"result": "skipped", "message": "no time left"}
    began, rows = time.monotonic(), place.work / f"{job}.npz"
    folder = written(layout, place)
    wrote = time.monotonic() - began
    program = (sys.executable, "-m", "dsv4_serve.demo.numerics.engine", rows, folder)
    drafter = LAYOUTS[layout].drafter
    command = [*program, "--options", json.dumps(ENGINE | options), "--drafter", drafter]
    log = place.work / f"{job}.log"
    try:
        with log.open("w") as output:
            status = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | env | {"CUDA_VISIBLE_DEVICES": gpus},
                timeout=max(place.until - time.monotonic(), 1.0),
                check=False,
            ).returncode
    except subprocess.TimeoutExpired:
        status = -9
    found: dict[str, Any] = {"layout": layout, "tp": options["tensor_parallel_size"], "options": options}
    found |= {"env": env} if env else {}
    found |= {"checkpoint_seconds": round(wrote), "seconds": round(time.monotonic() - began), "status": status}
    if status:
        return found | {"result": "failed", "message": blame(log)}
    limits = compare.limits("gpu-w4a4" if layout in W4A4 else "gpu")
    verdict = compare.compare(place.shipped, dict(np.load(rows)), limits)
    figures = {name: round(value, 4) for name, value in verdict.figures.items()}
    return found | {
        "result": "compared",
        "backends": backends(log),
        "figures": figures,
        "right": verdict.right,
        "reasons": list(verdict.reasons),
    }


_WRITING: dict[str, threading.Lock] = {layout: threading.Lock() for layout in LAYOUTS}


def written(layout: str, place: Place) -> Path:
    """Return the folder of a layout's checkpoint, which is kept for the next job."""
    folder = place.work / f"numerics-{place.size}-{layout}"
    with _WRITING[layout]:
        if not (folder / "written").exists():
            checkpoint.write(folder, layout, place.size)
            (folder / "written").touch()
    return folder


def blame(log: Path) -> str:
    """Return the last line of a log that names an error, or its last line."""
    lines = log.read_text(errors="replace").splitlines() or ["no output"]
    return ([line for line in lines if "Error" in line] or lines)[-1][-400:]


if __name__ == "__main__":
    main()
