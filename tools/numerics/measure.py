"""
Serve the random checkpoint in every layout and with every fault, on CPU, and keep the figures.

    python -m tools.numerics.measure FOLDER [NAME...]

NAME is a layout or a fault of faults.toml; without one, all. FOLDER keeps what the engines answered, so that a run that
was stopped goes on; `python -m tools.numerics.results FOLDER` writes the results file. An engine takes half a minute to
a minute of one CPU core.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dsv4_serve.demo.numerics import checkpoint
from dsv4_serve.demo.numerics.engine import NAMED
from dsv4_serve.demo.patched import patched_vllm
from dsv4_serve.demo.v4_layouts import LAYOUTS

from .faults import read

OPTIONS = '{"enforce_eager": true, "kv_cache_memory_bytes": 268435456}'
AT_ONCE = 3


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description="Serve the random checkpoint in every layout and with every fault.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    tree = patched_vllm(options.folder)
    names = options.names or [*LAYOUTS, *read()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: measure(name, options.folder, tree), names))


def measure(name: str, folder: Path, tree: Path) -> None:
    """Write the checkpoint, ask, and remove it."""
    out, scratch = folder / f"{name}.npz", folder / f"{name}.scratch"
    if out.exists():
        return
    scratch.mkdir(parents=True)
    arguments: tuple[str, ...] = ()
    if name in LAYOUTS:
        checkpoint.write(scratch / "checkpoint", name)
        arguments = ("--prompts", *(NAMED if name == "bf16" else ("short", "middle")))
        arguments += ("--drafter", LAYOUTS[name].drafter)
    else:
        fault = read()[name]
        fault.write(scratch / "checkpoint")
        tree = fault.patch(tree, scratch / "vllm")
        arguments = ("--prompts", *fault.prompts)
    unfinished = folder / f"{name}.unfinished.npz"
    environment = os.environ | {
        "PYTHONPATH": str(tree), "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    program = (sys.executable, "-m", "dsv4_serve.demo.numerics.engine", unfinished, scratch / "checkpoint")
    done = subprocess.run(
        [*program, "--options", OPTIONS, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{name}: {done.stderr[-2000:]}", file=sys.stderr)
    else:
        unfinished.rename(out)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
