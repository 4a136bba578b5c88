"""
A kernel pack on GPUs: what a first start takes without one and with one, and what is compiled all the same.

    python -m qualification.gpu.run_packs --out packs --requests 200 -- --profile 524k --model w4a16
    python -m qualification.gpu.run_packs --out packs --pack kernels.tar.xz -- --profile 524k --model w4a16

The first form starts from empty caches, exports, empties the caches, imports and starts again. The second imports a pack
of another host, and has no cold start. Both start at full size with dummy weights (`dsv4 warm --without-weights`), which
sends prompts of every length, and then ask `--requests` more (`dsv4 bench --without-weights`). Caches stay below one
HOME, which is emptied too, so that no compiler finds what it keeps elsewhere. Writes `packs.json` after every step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMIT = 0.25
"""The share of a cold start that a start with a pack may take."""
DSV4 = (sys.executable, "-m", "dsv4_serve.entrypoint")


def main() -> int:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description="A first start without a kernel pack, and with one.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=Path, help="a pack of another host; without it one is made here")
    parser.add_argument("--requests", type=int, default=200)
    options, plan = parser.parse_args(words[:cut]), words[cut + 1 :]
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"plan": plan, "limit": LIMIT}

    def keep(**more: Any) -> None:
        found.update(more)
        (out / "packs.json").write_text(json.dumps(found, indent=2) + "\n")

    pack = options.pack
    if pack is None:
        empty(out)
        keep(cold=warmed(out, plan))
        pack = out / "kernels.tar.xz"
        pack.unlink(missing_ok=True)
        keep(export=timed(out, "kernels", "export", "--out", str(pack), "--format", "json", *plan))
    empty(out)
    imported = timed(out, "kernels", "import", str(pack), "--unpinned", "--format", "json", *plan)
    keep(**{"import": imported}, pack_bytes=pack.stat().st_size)
    first = warmed(out, plan)
    keep(packed=first, compiled=sum(part["files"] for part in first["filled"].values()))
    before = files(out)
    batches = ("--batch", "1", "4", "16", "--requests-per-batch", str(-(-options.requests // 21)), "--out", str(out))
    keep(bench=timed(out, "bench", "--without-weights", *batches, "--format", "json", *plan))
    keep(compiled_by_requests=files(out) - before)
    if "cold" in found:
        keep(share=round(first["starts"][0]["seconds"] / found["cold"]["starts"][0]["seconds"], 3))
    print(json.dumps(found)[:4000])
    return 0 if passed(found) else 1


def passed(found: dict[str, Any]) -> bool:
    """Whether the aim is met: the share of the cold start, where there was one, and nothing compiled."""
    return found.get("share", 0.0) <= LIMIT and not found["compiled"] and not found["compiled_by_requests"]


def environ(out: Path) -> dict[str, str]:
    home = out / "home"
    return {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "DSV4_CACHE": str(home / "dsv4")}


def empty(out: Path) -> None:
    shutil.rmtree(out / "home", ignore_errors=True)
    (out / "home").mkdir()


def files(out: Path) -> int:
    """Count the kernels of the cache, without locks, logs and scratch files."""
    from dsv4_serve.entrypoint.supervisor import compiled

    folders = (out / "home/dsv4").glob("*/*/*")
    return sum(sum(compiled.count(folder).values()) for folder in folders)


def warmed(out: Path, plan: list[str]) -> dict[str, Any]:
    return timed(out, "warm", "--without-weights", "--format", "json", *plan)["answer"]


def timed(out: Path, *words: str) -> dict[str, Any]:
    """Run a command of `dsv4`, and return its seconds and its answer; its log goes to a file."""
    began = time.monotonic()
    with (out / f"{words[0]}.log").open("a") as log:
        done = subprocess.run(
            [*DSV4, *words], env=environ(out), stdout=subprocess.PIPE, stderr=log, text=True, check=True
        )
    return {"seconds": round(time.monotonic() - began, 1), "answer": json.loads(done.stdout)}


if __name__ == "__main__":
    sys.exit(main())
