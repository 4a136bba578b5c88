"""
The kernel cache on GPUs: one plan started cold, then warm, and what each phase took; a known-answer checkpoint.

    python -m qualification.gpu.run_caches --out caches --work checkpoints --tp 2

Writes `caches.json`. The warm replica ends by a stopped worker, so that what is left of a hung one is seen too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pynvml

from dsv4_serve.demo.deepseek_v4 import FLASH, write
from qualification.gpu import this_host
from qualification.gpu.run_faults import idle, phases
from qualification.gpu.served import FLAGS, SPECULATIVE
from tests.support.replica import replica


def main() -> int:
    parser = argparse.ArgumentParser(description="A cold and a warm start on GPUs.")
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", required=True, help="directory for the checkpoint, 3 GB")
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--layout", default="w4a16")
    options = parser.parse_args()
    os.environ["DSV4_PROFILES"] = str(Path(__file__).parent / "profiles")
    pynvml.nvmlInit()
    out = Path(options.out)
    model = Path(options.work) / "good"
    write(model, options.layout, FLASH, "good")
    argv = ["--profile", "known-answer", "--model", f"{options.layout}={model}", *FLAGS]
    argv += ["--tensor-parallel-size", str(options.tp), "--speculative-config", SPECULATIVE]
    env: dict[str, Any] = {"DSV4_CACHE": str(out / "cache"), "DSV4_SUPERVISE_LIVE_GRACE": "30"}
    found: dict[str, Any] = {**this_host.facts(), "tp": options.tp, "layout": options.layout}
    for name in ("cold", "warm"):
        with replica(out / name, *argv, model_name="deepseek-v4-flash", **env) as running:
            found[name] = {
                "ready_after": round(running.until_ready(450), 1),
                **phases(running),
                "said": running.messages(),
            }
            if name == "warm":
                found["stopped while idle"] = idle(running)
        (out / "caches.json").write_text(json.dumps(found, indent=2) + "\n")
    size = sum(file.stat().st_size for file in (out / "cache").rglob("*") if file.is_file())
    found["cache_bytes"] = size
    (out / "caches.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found)[:6000])
    return 0


if __name__ == "__main__":
    sys.exit(main())
