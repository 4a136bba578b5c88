"""
Replicas side by side behind HAProxy, with a known-answer checkpoint: their start at the same time, a drain, a kill, a hang.

    python -m qualification.gpu.run_pair --out pair --work checkpoints --gpus 0,1,2,3 --tp 2

All share one kernel cache. Clients stream meanwhile. Each step is written to `pair.json` when it is over; what it fails with is
its result.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from dsv4_serve.demo.deepseek_v4 import FLASH, TINY, write
from dsv4_serve.entrypoint.qualify.small import SKIPPED
from qualification.fleet.haproxies import named, program
from qualification.gpu import pair as replicas
from qualification.gpu import this_host
from qualification.gpu.layout_job import MODELS
from qualification.gpu.pair import address, groups
from qualification.gpu.served import FLAGS
from tests.deploy.pair import Pair
from tests.support.balancer import Late
from tests.support.load import Load, load
from tests.support.patience import until
from tests.support.replica import Replica

Step = dict[str, Any]
ONE = address(0)
GRACE = {"DSV4_SUPERVISE_LIVE_GRACE": "30", "DSV4_GATE_TOKENS": "32"}
CLIENTS, TOKENS, PAUSE = 8, 200, 3.0
"""Clients at a time, tokens of an answer, seconds of load before and after an event."""
LOGGED = re.compile(r" api (?P<server>\S+) \S+ (?P<status>\d+) \d+ - - (?P<end>\S{4}) .*\"POST /v1/completions ")
"""A request in HAProxy's log; `end` is `----` when neither side broke it off."""


@dataclass
class Run:
    """The replicas, and how long one may take to start."""

    pair: Pair
    every: tuple[str, ...]
    patience: float
    answered: dict[str, int] = field(default_factory=dict)
    """The requests that each replica answered in full, in the last step under load."""

    @property
    def others(self) -> list[str]:
        return [one for one in self.every if one != ONE]

    def started(self) -> Step:
        """Wait until all are ready and get requests."""
        return replicas.until_started(self.pair, self.patience)

    def again(self) -> Step:
        """Start the first one again, and wait until it gets requests."""
        began = time.monotonic()
        running = self.pair.add(ONE)
        running.until(lambda: self.pair.ready(ONE), self.patience, "ready again")
        ready = time.monotonic() - began
        return {"ready_again_after": round(ready, 1), "back_after_ready": round(self.pair.until_up(*self.every), 1)}

    @contextmanager
    def load(self) -> Iterator[Load]:
        """Keep clients busy during the block, then read from HAProxy's log who answered them: vLLM does not say."""
        addresses, before = self.pair.balancer.addresses(), len(self.logged())
        with load(self.pair.balancer.url, CLIENTS, TOKENS) as sent:
            yield sent
        until(lambda: len(self.logged()) - before >= len(sent.outcomes), 1)
        self.answered = answered(self.logged()[before:], addresses)

    def logged(self) -> list[re.Match[str]]:
        """Return the requests in HAProxy's log, each written when it is over."""
        return list(LOGGED.finditer(self.pair.balancer.log.read_text()))

    def drained(self) -> Step:
        """SIGTERM under load."""
        with self.load() as sent:
            time.sleep(PAUSE)
            began = time.monotonic()
            self.pair.replicas[ONE].stop()
            out = self.pair.until_up(*self.others, seconds=30)
            status, _ = self.pair.replicas[ONE].until_ended(120)
            ended = time.monotonic() - began
            self.pair.names.running.remove(ONE)
            time.sleep(PAUSE)
        facts = {"out_after": round(out, 1), "ended_after": round(ended, 1), "status": status}
        return {**facts, **self.lost(sent, began + out)}

    def killed(self) -> Step:
        """SIGKILL of all its processes under load."""
        family = [psutil.Process(self.pair.replicas[ONE].process.pid), *self.pair.replicas[ONE].family()]
        with self.load() as sent:
            time.sleep(PAUSE)
            began = time.monotonic()
            for process in family:
                process.kill()
            out = self.pair.until_up(*self.others, seconds=30)
            time.sleep(PAUSE)
        return {"out_after": round(out, 1), **self.lost(sent, began + out)}

    def hung(self) -> Step:
        """SIGSTOP of a worker under load, for good: out of rotation, then ended by its supervisor."""
        running = self.pair.replicas[ONE]
        with self.load() as sent:
            time.sleep(PAUSE)
            worker = a_worker(running)
            name = worker.name()
            worker.suspend()
            began = time.monotonic()
            out = self.pair.until_up(*self.others, seconds=90)
            status, _ = running.until_ended(200)
            ended = time.monotonic() - began
            time.sleep(PAUSE)
        facts = {"stopped": name, "out_after": round(out, 1), "ended_after": round(ended, 1), "status": status}
        return {**facts, "exit": running.last_exit(), **self.lost(sent, began + out)}

    def lost(self, sent: Load, since: float) -> Step:
        """Return how many requests were sent, which failed, how many of those were sent `since`, and who answered."""
        failed = sent.failed()
        return {
            "requests": len(sent.outcomes),
            "failed": len(failed),
            "failed_later": len([one for one in failed if one.began > since]),
            "errors": sorted({one.error[:200] for one in failed}),
            "answered": self.answered,
        }


def a_worker(running: Replica) -> psutil.Process:
    """Return the second worker of a replica, the engine where there is none, or the API server of a stand-in."""
    named = {process.name(): process for process in running.family()}
    found = [named[name] for title in ("Worker_TP1", "EngineCore") for name in named if title in name]
    return found[0] if found else running.api_server()


def answered(requests: Sequence[re.Match[str]], addresses: Mapping[str, str]) -> dict[str, int]:
    """Return how many requests of HAProxy's log each replica answered in full, by its address."""
    whole = [addresses[one["server"]] for one in requests if (one["status"], one["end"]) == ("200", "----")]
    return dict(sorted(Counter(whole).items()))


STEPS: dict[str, Callable[[Run], Step]] = {
    "start": Run.started, "drain": Run.drained, "after drain": Run.again, "kill": Run.killed, "after kill": Run.again, "hang": Run.hung,
}  # fmt: skip


def steps(text: str) -> list[str]:
    """Return the names in a list with commas; raise ArgumentTypeError for another step, or one before the start."""
    names = text.split(",")
    if unknown := [name for name in names if name not in STEPS]:
        raise argparse.ArgumentTypeError(f"no step {unknown[0]!r}; there are {', '.join(STEPS)}")
    if names[0] != "start":
        raise argparse.ArgumentTypeError(f"the first step is start, not {names[0]}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description="Replicas side by side behind HAProxy.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="directory for checkpoints, 3 GB each")
    parser.add_argument("--gpus", default="0,1,2,3", help="GPUs, divided among the replicas in this order")
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--layout", default="w4a16")
    parser.add_argument("--patience", type=float, default=300, help="seconds for a start")
    parser.add_argument("--tiny", action="store_true", help="a tiny checkpoint, to try this script")
    parser.add_argument(
        "--steps", type=steps, default=",".join(STEPS), help="some of them, in this order (default: %(default)s)"
    )
    options = parser.parse_args()
    checkpoint = options.work / f"{options.layout}-good"
    write(checkpoint, options.layout, TINY if options.tiny else FLASH, "good")
    os.environ.setdefault("DSV4_PROFILES", str(Path(__file__).parent / "profiles"))
    model = f"{MODELS.get(options.layout, options.layout)}={checkpoint}"
    argv = ["--profile", "known-answer", "--model", model, *FLAGS]
    argv += ["--tensor-parallel-size", str(options.tp), *(word for name in SKIPPED for word in ("--skip", name))]
    devices = groups(options.gpus, options.tp)
    options.out.mkdir(parents=True, exist_ok=True)
    found: Step = {
        "kind": "fleet-pair",
        "front": named(program()),
        "cores": os.cpu_count(),
        **this_host.facts(),
        "layout": options.layout,
        "tp": options.tp,
        "gpus": devices,
        "steps": {},
    }
    with replicas.pair(devices, argv, os.environ | GRACE, options.out.resolve(), quick_end=False) as made:
        run = Run(made, tuple(made.replicas), options.patience)
        for name in options.steps:
            try:
                found["steps"][name] = {"ok": True, **STEPS[name](run)}
            except (Late, psutil.Error, OSError, LookupError, ValueError, httpx.HTTPError) as error:
                found["steps"][name] = {"ok": False, "error": str(error)[-3000:]}
            (options.out / "pair.json").write_text(json.dumps(found, indent=2) + "\n")
            print(name, json.dumps(found["steps"][name])[:1500], flush=True)
            if not found["steps"][name]["ok"]:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
