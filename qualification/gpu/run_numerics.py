"""
Compare random checkpoints of Flash's widths with the reference, on the GPUs of this host.

    python -m qualification.gpu.run_numerics --out OUT --work FOLDER --jobs native w4a16@2 native@2+ep native+graphs

A job is LAYOUT[@TP][+ep][+graphs]. Each adds a line to OUT/numerics.jsonl with the figures of the comparison, and keeps
what the engine answered as OUT/JOB.npz. The reference's tables are computed once on this host's CPUs, if the repository
has none of that size. The DSpark drafters have no reference; of their layouts the target model is compared.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dsv4_serve.demo.numerics import answers, checkpoint, compare, golden
from dsv4_serve.demo.v4_layouts import LAYOUTS

SIZE = "flash"
W4A4 = ("nvfp4", "pro", "flash-nvfp4", "flash-0731-nvfp4")


def main() -> None:
    """Run the jobs one after the other."""
    parser = argparse.ArgumentParser(description="Compare random checkpoints with the reference, on GPUs.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", nargs="+", default=list(LAYOUTS), metavar="JOB")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shipped = tables()
    for job in options.jobs:
        line = json.dumps({"job": job} | measured(job, options.out, options.work, shipped))
        print(line, flush=True)
        with (options.out / "numerics.jsonl").open("a") as file:
            file.write(line + "\n")


def tables() -> golden.Golden:
    """Return the reference's tables, computed here when none are shipped."""
    try:
        return golden.load(SIZE)
    except FileNotFoundError:
        return answers.golden(SIZE)


def arguments(job: str) -> tuple[str, dict[str, Any]]:
    """Return a job's layout and its arguments of `vllm.LLM`."""
    name, *words = job.split("+")
    layout, _, size = name.partition("@")
    return layout, {
        "tensor_parallel_size": int(size or 1),
        "enable_expert_parallel": "ep" in words,
        "enforce_eager": "graphs" not in words,
        "gpu_memory_utilization": 0.5,
    }


def measured(job: str, out: Path, work: Path, shipped: golden.Golden) -> dict[str, Any]:
    """Serve one checkpoint, ask, and compare."""
    layout, options = arguments(job)
    folder, rows = work / f"numerics-{layout}", out / f"{job}.npz"
    if not (folder / "config.json").exists():
        checkpoint.write(folder, layout, SIZE)
    drafter = LAYOUTS[layout].drafter if LAYOUTS[layout].drafter == "mtp" else "none"
    began = time.monotonic()
    program = (sys.executable, "-m", "dsv4_serve.demo.numerics.engine", rows, folder)
    with (out / f"{job}.log").open("w") as log:
        command = [*program, "--options", json.dumps(options), "--drafter", drafter]
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - began), "status": done.returncode}
    if done.returncode:
        return found
    hardware = "gpu-w4a4" if layout in W4A4 else "gpu"
    verdict = compare.compare(shipped, dict(np.load(rows)), compare.limits(hardware))
    figures = {name: round(value, 4) for name, value in verdict.figures.items()}
    return found | {"figures": figures, "right_by_estimate": verdict.right, "reasons": verdict.reasons}


if __name__ == "__main__":
    main()
