"""
What vLLM says of its memory for several settings: each is started without weights and stopped at its KV cache lines.

    python -m qualification.gpu.kv_lines --settings FILE.toml --work DIR --deadline 540 --record kv-lines.jsonl

A folder without weights has the published sizes, heads and experts divided by two: one GPU then holds what one of two
would, but for the buffers of NCCL, and for the vocabulary, which stays whole as the buffers that are sized by it. Prints a line of JSON for each setting as soon as it is there, and appends it to `--record`;
`unfold` makes a file of each. After the deadline no further setting begins.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from dsv4_serve.demo.v4_layouts import LAYOUTS
from dsv4_serve.entrypoint.bench import without_weights
from dsv4_serve.entrypoint.bench.without_weights import SIZES, Published
from dsv4_serve.entrypoint.client.local_replica import free_port
from qualification.gpu import session, this_host

SHARE = 2
NOTED = re.compile(
    r"Model loading took|KV cache (memory|size):|Memory profiling takes|Initial free memory|Free memory after profiling"
    r"|CUDA graph (pool|memory)|Graph captur|Maximum concurrency for|Using \S+ .*MoE backend|WORKSPACE|indexer cache|Error: |ERROR",
)
LAST = re.compile(r"Maximum concurrency for|estimated maximum model length|No available memory for the cache")
KEPT = 400
"""Characters of a line that are kept."""


def share(sizes: Published) -> Published:
    """What one of `SHARE` GPUs holds of heads and experts."""
    return replace(sizes, **{name: getattr(sizes, name) // SHARE for name in ("heads", "o_groups", "inter")})


def argv(setting: dict[str, Any], common: list[str], folder: Path, port: int) -> list[str]:
    """The command of a setting."""
    found = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(folder), "--load-format", "dummy"]
    found += ["--host", "127.0.0.1", "--port", str(port), *common, *setting["flags"]]
    if setting["draft_tokens"]:
        method = LAYOUTS[setting["layout"]].drafter
        speculative = {"method": method, "num_speculative_tokens": setting["draft_tokens"]}
        if sampling := setting.get("sampling"):
            speculative["draft_sample_method"] = sampling
        found += ["--speculative-config", json.dumps(speculative)]
    return found


def lines(process: subprocess.Popen[bytes], until: float, log: Path) -> Iterator[str]:
    """Yield what a process prints until it ends or the monotonic clock passes `until`; all of it goes to `log`."""
    assert process.stdout
    reading, rest = selectors.DefaultSelector(), b""
    os.set_blocking(process.stdout.fileno(), False)
    reading.register(process.stdout, selectors.EVENT_READ)
    with log.open("wb") as kept:
        while (left := until - time.monotonic()) > 0:
            if not reading.select(min(left, 1)):
                continue
            if not (read := os.read(process.stdout.fileno(), 1 << 16)):
                return
            kept.write(read)
            kept.flush()
            *whole, rest = (rest + read).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)


def measured(command: list[str], environ: dict[str, str], until: float, log: Path) -> dict[str, Any]:
    """Start it, note its lines of memory up to the last one, and leave nothing of its session behind."""
    began, noted, outcome = time.monotonic(), [], "cut"
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for line in lines(process, until, log):
            if NOTED.search(line):
                noted.append(f"{time.monotonic() - began:.1f} {line[:KEPT]}")
            if LAST.search(line):
                outcome = "sized"
                break
        else:
            with suppress(subprocess.TimeoutExpired):
                outcome = f"ended with {process.wait(1)}"
    finally:
        end(process)
    return {"result": outcome, "seconds": round(time.monotonic() - began, 1), "lines": noted[:80]}


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill every descendant and every process of the session, and wait for the GPU memory to come back."""
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                one.kill()
    session.kill(process)
    for _ in range(20):
        if (used := memory_used()) is None or used < 2048:
            return
        time.sleep(0.5)


def memory_used() -> int | None:
    """MiB in use on the first visible GPU; None without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    numbers = [int(line) for line in found if line.strip().isdecimal()]
    return numbers[int(first)] if first.isdecimal() and int(first) < len(numbers) else None


def folder_of(layout: str, work: Path) -> Path:
    """The folder without weights of a layout, written if it is not there."""
    folder = work / f"{layout}-share-of-{SHARE}"
    without_weights.write(folder, "deepseek-v4-flash", layout, share(SIZES["deepseek-v4-flash"]))
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description="vLLM's own memory lines for several settings.")
    parser.add_argument("--settings", type=Path, default=Path(__file__).with_suffix(".toml"))
    parser.add_argument("--only", nargs="*", help="names of settings; all without it")
    parser.add_argument("--work", type=Path, required=True, help="directory for folders and logs")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--deadline", type=float, default=540, help="seconds for everything")
    parser.add_argument("--limit", type=float, default=180, help="seconds for one setting")
    parser.add_argument("--least", type=float, default=40, help="seconds without which no setting begins")
    options = parser.parse_args()
    until = time.monotonic() + options.deadline
    read = tomllib.loads(options.settings.read_text())
    options.work.mkdir(parents=True, exist_ok=True)
    name, about = this_host.hardware()[0], this_host.facts()
    environ = os.environ | {"VLLM_LOGGING_LEVEL": "DEBUG", "HF_HUB_OFFLINE": "1"}
    sized = 0
    for setting in read["setting"]:
        if options.only and setting["name"] not in options.only:
            continue
        result = {"file": f"memory-{setting['name']}-{name}-vllm{about['versions']['vllm']}.json"}
        result |= {"setting": setting, "share": SHARE, "common": read["common"]} | about
        left = until - time.monotonic()
        if left < options.least:
            result |= {"result": "skipped", "message": f"{left:.0f} s were left"}
        else:
            folder = folder_of(setting["layout"], options.work)
            command = argv(setting, read["common"], folder, free_port())
            stop = time.monotonic() + min(left, setting.get("limit", options.limit))
            result |= measured(command, environ, stop, options.work / f"{setting['name']}.log")
        sized += result["result"] == "sized"
        line = json.dumps(result)
        with options.record.open("a") as record:
            record.write(line + "\n")
        print(line, flush=True)
    return 0 if sized else 1


if __name__ == "__main__":
    sys.exit(main())
