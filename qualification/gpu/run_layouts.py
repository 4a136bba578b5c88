"""
Load every published layout on GPUs and compare each token with the known answer; write a result file for each.

    python -m qualification.gpu.run_layouts --out results --tp 1 --jobs native w4a16:scrambled stock/pro flash-0731@7+ep

layout_job.py says what a job is. One with `+offload` is asked everything a second time after the GPU's prefix cache is
emptied: its KV caches have to be restored from host memory. One with `+shared` is asked prompts that share beginnings
(shared.py), of which the GPU's prefix cache has to have as much as `cache-windows-where-drafts-resume` keeps.
`good` drafts must have 0.99 of their tokens accepted; `removed` and `holed` ones must be refused at start; `scrambled`
ones cannot be told from good ones at load and must show in the acceptance counter. Each result is written when it is
there, to `--out` and as a line of `--record`.
"""

import argparse
import json
import os
import queue
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dsv4_serve.demo.deepseek_v4 import FLASH, LAYOUTS, MTP, TINY, Answer, write
from dsv4_serve.demo.v4_reach import Reach
from dsv4_serve.demo.v4_text import reaching_walk
from dsv4_serve.entrypoint.qualify.known import Question, far, questions
from dsv4_serve.entrypoint.qualify.sizes import Sizes
from qualification.gpu import returning, this_host
from qualification.gpu.layout_job import FORM, Job, command, parse_job
from qualification.gpu.served import HEALTH, Ended, ask, empty_prefix_cache, metrics, server, wait_until_ready
from qualification.gpu.shared import Beginning, beginnings, unlike

Result = dict[str, Any]
PRODUCT = f"{sys.executable} -m dsv4_serve.entrypoint serve --profile known-answer --model {{name}}={{model}}"
REFUSAL = re.compile(r"(MTP|DSpark) speculative decoding: |^  draft-[\w-]+: ", re.MULTILINE)
"""Of a patch, and of a check before the start."""
COUNTED = re.compile(r"SpecDecoding metrics: .*Accepted: (\d+) tokens, Drafted: (\d+) tokens")
DEEP = (600, 2300, 3800)
"""Tokens of the prompts whose answer a key far back decides, so that a KV cache that is restored wrongly shows."""


class Runner:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.until = time.monotonic() + options.deadline
        self.locks = {f"{layout}-{mtp}": threading.Lock() for layout in LAYOUTS for mtp in MTP}
        self.answers: dict[str, Answer] = {}

    def checkpoint(self, job: Job) -> tuple[Path, list[Question], list[Beginning]]:
        name, dims = f"{job.layout}-{job.mtp}", TINY if self.options.tiny else FLASH
        walk = reaching_walk(dims.vocab) if job.offload or job.shared else None
        made = f"{name}-reach" if walk else name
        path = Path(self.options.work) / made
        with self.locks[name]:
            if made not in self.answers:
                self.answers[made] = write(path, job.layout, dims, job.mtp, walk)
        answer, reach = self.answers[made], walk.reach if walk else None
        kinds = beginnings(answer, reach, Sizes.depth_answer) if reach and job.shared else []
        return path, asked(answer, reach), kinds

    def ready_url(self, job: Job, port: int) -> str:
        ours = not job.stock and "{name}" in self.options.serve_cmd
        return f"http://127.0.0.1:{port + HEALTH}/readyz" if ours else f"http://127.0.0.1:{port}/health"

    def run(self, job: Job, slot: int) -> Result:
        log = Path(self.options.out) / f"{job.name}-tp{job.tp}.log"
        started = time.monotonic()
        result: Result = {"job": job.name, "layout": job.layout, "mtp": job.mtp, "stock": job.stock, "tp": job.tp}
        result |= {"method": job.method, "num_speculative_tokens": job.tokens, "expert_parallel": job.experts}
        result |= {"env": env} if (env := job.variables) else {}
        if started > self.until - 30:
            return result | {"result": "skipped", "message": "no time left"}
        path, requests, kinds = self.checkpoint(job)
        until, port = min(time.monotonic() + self.options.timeout, self.until), self.options.port + slot
        devices = ",".join(str(n) for n in range(job.tp)) if job.tp > 1 else str(slot % self.options.gpus)
        argv = command(self.options.stock_cmd if job.stock else self.options.serve_cmd, job, path)
        try:
            with server(argv, tp=job.tp, port=port, devices=devices, log=log, env=env) as process:
                wait_until_ready(process, self.ready_url(job, port), until)
                result["boot_seconds"] = round(time.monotonic() - started, 1)
                counts = ask(port, requests, until)
                again = restored(port, requests, until) if job.offload else {}
                shared = found_again(port, kinds, until) if kinds else {}
        except (Ended, OSError) as error:
            outcome = "refused" if REFUSAL.search(log.read_text(errors="replace")) else "failed"
            if outcome == "failed" and (seen := counted(log)):
                result, outcome = result | seen, "cut"
            return (
                result
                | {"result": outcome, "message": f"{error}; {blame(log)}".replace(f"{path.parent}/", "")}
                | judged(job, outcome)
            )
        result |= vars(counts) | {"acceptance": round(counts.acceptance, 4), "backends": backends(log)}
        result["seconds"] = round(time.monotonic() - started, 1)
        outcome = "served" if counts.acceptance >= 0.5 else "reported"
        right = counts.right == counts.asked and counts.acceptance >= 0.99
        if job.offload:
            result["again"] = again
            right = right and again["right"] == again["asked"] and again["acceptance"] >= 0.99 and again["host"] > 0
        if job.shared:
            result["shared"] = shared
            right = right and shared["right"] == shared["asked"] and shared["acceptance"] >= 0.99
            right = right and not shared["unlike"]
        return result | {"result": outcome} | judged(job, outcome, right)


def asked(answer: Answer, reach: Reach | None) -> list[Question]:
    """Return prompts whose last token decides the answer and, where the checkpoint can, ones that a far key decides."""
    if reach is None:
        return questions(answer, Sizes.prompts, [Sizes.answer])
    near = questions(answer, Sizes.prompts, [Sizes.answer], {*reach.queries.values(), *reach.keys})
    return near + [one for length in DEEP for one in far(answer, reach, length, Sizes.depth_answer)]


def restored(port: int, requests: list[Question], until: float) -> Result:
    """Empty the GPU's prefix cache, ask again, and return the counts, prompt tokens found where, and bytes copied."""
    stored = returning.read(metrics(port, until))["stored"]
    empty_prefix_cache(port, until)
    before = returning.read(metrics(port, until))
    counts = ask(port, requests, until)
    after = returning.read(metrics(port, until))
    rose = {name: round(after[name] - before[name], 6) for name in after}
    return vars(counts) | {"acceptance": round(counts.acceptance, 4)} | rose | {"stored": stored}


def found_again(port: int, kinds: list[Beginning], until: float) -> Result:
    """Ask prompts that share beginnings; return the counts, what the cache had of each, and where it had something else."""
    cached: list[int] = []
    counts = ask(port, [one for kind in kinds for one in kind.questions], until, cached)
    found = {"cached": cached, "unlike": unlike(kinds, cached)}
    return vars(counts) | {"acceptance": round(counts.acceptance, 4)} | found


def judged(job: Job, outcome: str, right: bool = False) -> Result:
    """Whether a job did what its kind of checkpoint promises; a stock job's answer is only compared."""
    if job.mtp == "good":
        return {"ok": outcome == "served" and right}
    return {"ok": outcome == "refused" or (job.mtp == "scrambled" and outcome == "reported")}


def blame(log: Path) -> str:
    """The last exception line of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [
        line for line in lines if "Error: " in line and "ngineCore failed" not in line and "See root cause" not in line
    ]
    return (errors or lines or ["no output"])[-1][-600:].strip()


def counted(log: Path) -> Result:
    """What vLLM's log counted before a server ran out of time: drafts of the draft gate, whose answers nobody compares."""
    found = COUNTED.findall(log.read_text(errors="replace")) if log.exists() else []
    if not found:
        return {}
    accepted, drafted = (sum(int(pair[n]) for pair in found) for n in (0, 1))
    return {
        "accepted": accepted,
        "drafted": drafted,
        "acceptance": round(accepted / max(drafted, 1), 4),
        "backends": backends(log),
    }


def backends(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return sorted({line.split("] ", 1)[-1][:120] for line in lines if " MoE backend" in line and "Using" in line})


def keep(result: Result, options: argparse.Namespace) -> None:
    """Write `<job>-<hardware>-tp<N>-vllm<version>.json`, and a line of the record."""
    facts = {**this_host.facts(), "patches": None if result["stock"] else options.patches}
    short, vllm = this_host.hardware()[0], facts["versions"]["vllm"]
    name = f"{result['job']}-{short}-tp{result['tp']}-vllm{vllm}.json"
    (Path(options.out) / name).write_text(json.dumps(result | facts, indent=2) + "\n")
    if options.record:
        with Path(options.record).open("a") as record:
            record.write(json.dumps({"file": name} | result | facts) + "\n")


def table(results: list[Result]) -> None:
    print(f"{'job':28} tp {'result':9} ok    tokens   accepted  boot s  message")
    for r in results:
        tokens, drafts = (f"{r.get(a, '-')}/{r.get(b, '-')}" for a, b in (("right", "asked"), ("accepted", "drafted")))
        mark = "yes" if r.get("ok") else "NO"
        start = f"{r['job']:28} {r['tp']:2} {r['result']:9} {mark:4} {tokens:>8} {drafts:>9}"
        print(f"{start}  {r.get('boot_seconds', '-')!s:>6}  {r.get('message', '')[:160]}")


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description="Known-answer checkpoints on GPUs.")
    parser.add_argument("--jobs", nargs="+", required=True, metavar=FORM)
    parser.add_argument("--out", required=True, help="directory for results and logs")
    parser.add_argument("--work", required=True, help="directory for checkpoints, 3 GB each")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to spread TP=1 servers over")
    parser.add_argument("--parallel", type=int, default=5, help="servers at a time")
    parser.add_argument("--timeout", type=float, default=400, help="seconds for one server")
    parser.add_argument("--deadline", type=float, default=540, help="seconds for everything")
    parser.add_argument("--serve-cmd", default=PRODUCT, help="{model} and {name} are filled in (default: %(default)s)")
    parser.add_argument("--stock-cmd", default=f"{sys.executable} -m vllm.entrypoints.cli.main serve {{model}}")
    parser.add_argument("--patches", type=read_json, help="JSON file by `dsv4 patch report`")
    parser.add_argument("--record", help="a file that gets one line of JSON for each result, as soon as it is there")
    parser.add_argument("--port", type=int, default=8100, help="of the first server (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="tiny checkpoints, to try this script")
    options = parser.parse_args()
    for path in (options.out, options.work):
        Path(path).mkdir(parents=True, exist_ok=True)
    try:
        jobs = [parse_job(text, options.tp) for text in options.jobs]
    except ValueError as error:
        parser.error(str(error))
    os.environ["DSV4_PROFILES"] = str(Path(__file__).parent / "profiles")
    results = run_all(Runner(options), jobs, options.parallel)
    table(results)
    return 0 if all(r.get("ok") or r["stock"] for r in results) else 1


def run_all(runner: Runner, jobs: list[Job], parallel: int) -> list[Result]:
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(parallel):
        slots.put(slot)
    results: dict[Job, Result] = {}

    def one(job: Job) -> None:
        slot = slots.get()
        try:
            results[job] = runner.run(job, slot)
            keep(results[job], runner.options)
            found = {key: results[job].get(key) for key in ("result", "ok", "accepted", "drafted", "seconds")}
            print(f"{job.name} tp{job.tp}: {found}", flush=True)
        finally:
            slots.put(slot)

    threads = [threading.Thread(target=one, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    return [results[job] for job in jobs]


if __name__ == "__main__":
    sys.exit(main())
