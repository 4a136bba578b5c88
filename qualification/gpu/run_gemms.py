"""
DeepGEMM's and TileLang's kernels of a plan on a GPU: compiled in many processes, and whether vLLM's warmup finds them.

    python -m qualification.gpu.run_gemms --out gemms --share 2 --deadline 300

Three steps: all kernels in many processes into an empty cache, as `dsv4 warm` does it; vLLM's warmup of DeepGEMM's linear
products with that cache, which should add none; and the same warmup with an empty cache, which is what a start does, as
far as the deadline lets it. Writes `gemms.json` after every step, with the names of the kernels:
those of a first start are in `cold-kernels.txt` of the job `pack`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint.bench import sweep
from dsv4_serve.entrypoint.bench.kernel_products import Gemm
from qualification.gpu import full_size
from qualification.gpu.full_size import Kept

WARMUP = """
import json, sys, time, torch
from vllm.model_executor.warmup import deep_gemm_warmup as warmup
began = time.monotonic()
for n, k in json.loads(sys.argv[1]):
    weight = torch.empty(n, k, dtype=torch.float8_e4m3fn, device="cuda:0")
    scale = torch.zeros(n // 128, k // 128, dtype=torch.float32, device="cuda:0")
    warmup._deepgemm_fp8_gemm_nt_warmup(weight, scale, int(sys.argv[2]))
torch.cuda.synchronize()
print(json.dumps(round(time.monotonic() - began, 1)))
"""
"""vLLM's warmup of linear layers, and the seconds that it took without its imports."""


def main() -> int:
    parser = argparse.ArgumentParser(description="DeepGEMM's kernels, compiled in many processes and in one.")
    full_size.add_options(parser)
    options, began = parser.parse_args(), time.monotonic()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    how = full_size.planned(options, full_size.caches_in(out / "home"))
    kept = Kept(out / "gemms.json", **full_size.about(options))
    many = emptied(out / "many")
    products, found = full_size.prebuilt(options, how, many)
    most = sweep.lengths(how.plan)[-1]
    kept.add(products=[asdict(one) for one in products], many={**asdict(found), "names": names(many)})
    left = began + options.deadline - time.monotonic()
    kept.add(vllm_after=warmed(products, most, many, how.environ, left))
    left = began + options.deadline - time.monotonic()
    kept.add(vllm_alone=warmed(products, most, emptied(out / "alone"), how.environ, left))
    return 0 if found.kernels and not found.failed and not kept.found["vllm_after"]["kernels"] else 1


def warmed(
    products: Sequence[Gemm], tokens: int, cache: Path, environ: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """Run vLLM's warmup of the linear products with a cache; return what it added and how long it took."""
    before, linear = set(names(cache)), [(one.n, one.k) for one in products if one.kind == "linear"]
    argv = [sys.executable, "-c", WARMUP, json.dumps(linear), str(tokens)]
    variables = {**environ, "VLLM_CACHE_ROOT": str(cache / "vllm")}
    try:
        done = subprocess.run(
            argv, env=variables, capture_output=True, text=True, check=False, timeout=max(1.0, seconds)
        )
    except subprocess.TimeoutExpired:
        found: dict[str, Any] = {"cut": round(seconds)}
    else:
        last = (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]
        found = {"failed": last[:300]} if done.returncode else {"seconds": json.loads(last)}
    added = sorted(set(names(cache)) - before)
    return {**found, "kernels": len(added), "names": added}


def names(cache: Path) -> list[str]:
    """Return the kernels of a cache by name."""
    return sorted(file.parent.name for file in (cache / "vllm/deep_gemm").rglob("kernel.cubin"))


def emptied(folder: Path) -> Path:
    """Return an empty folder of that path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
