"""The timed all-reduce on real GPUs: which environments go through, how fast, how much of /dev/shm they use, and a hang."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import tomllib
from pathlib import Path

from dsv4_serve.entrypoint.doctor.all_reduce import probe
from dsv4_serve.entrypoint.doctor.all_reduce.result import AllReduceResult

ROOT = Path(__file__).resolve().parents[2]
STOPPED = """
import os, signal, sys
from dsv4_serve.entrypoint.doctor.all_reduce import rank as collective_rank
if sys.argv[1] == "1":
    collective_rank.contribution = lambda pattern, rank: os.kill(os.getpid(), signal.SIGSTOP) or pattern
collective_rank.main(sys.argv[1:])
"""


def shipped(name: str) -> dict[str, str]:
    """A shipped NCCL set."""
    tables = tomllib.loads((ROOT / "profiles" / "nccl" / f"{name}.toml").read_text())
    return {key: str(value) for key, value in tables["env"].items()}


def watched(ranks: int, env: dict[str, str], program: list[str]) -> tuple[AllReduceResult, int]:
    """Run once; also the most bytes of /dev/shm that were in use meanwhile, beyond what was before."""
    before, most, over = shutil.disk_usage("/dev/shm").used, 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.05):
            most = max(most, shutil.disk_usage("/dev/shm").used - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return probe.run(ranks, "nccl", {**os.environ, **env}, program=program), most
    finally:
        over.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stopped = Path(folder) / "stopped.py"
        stopped.write_text(STOPPED)
        rows: dict[str, tuple[dict[str, str], list[str]]] = {
            "default": ({}, [*probe.RANK]),
            "NCCL_P2P_DISABLE=1": ({"NCCL_P2P_DISABLE": "1"}, [*probe.RANK]),
            "NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1": (
                {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"},
                [*probe.RANK],
            ),
            **{name: (shipped(name), [*probe.RANK]) for name in ("p2p-on", "p2p-off", "p2p-off-concurrent")},
            "rank 1 stopped": ({}, [sys.executable, str(stopped)]),
        }
        kept = []
        for name, (env, program) in rows.items():
            if options.only and name != options.only:
                continue
            result, shm = watched(options.ranks, env, program)
            print(f"{name}: {result}; {result.wall:.1f} s in all, {shm / 2**20:.0f} MiB of /dev/shm", flush=True)
            for timing in result.timings:
                print(f"  {timing.bytes:>9} B {timing.seconds * 1e6:>10.1f} us {timing.bandwidth / 1e9:>8.2f} GB/s")
            kept.append({"name": name, "shm": shm, "result": repr(result)})
    if options.out:
        options.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
