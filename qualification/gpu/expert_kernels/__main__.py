"""
Find faster kernels for experts than Humming's own choice, and write them into the tables that vLLM reads.

    python -m qualification.gpu.expert_kernels compile --kernels FOLDER [LAYER ...]    # needs NVRTC, no GPU
    python -m qualification.gpu.expert_kernels measure --kernels FOLDER --out rows.jsonl [--seconds S] [LAYER ...]
    python -m qualification.gpu.expert_kernels choose rows.jsonl --tables FOLDER       # needs neither
    python -m qualification.gpu.expert_kernels keep rows.jsonl --out FILE --driver VERSION --vllm VERSION --date 2026-11-30

A LAYER is format, sublayer and GPUs: `mxfp4-fp8,w13,2`; without one, every format at TP=2 but `mxfp4-fp8token`, whose FP8
inputs have one scale for each token. `measure` compiles what is missing. Run again with the same file it goes on. The tables'
folder is VLLM_TUNED_CONFIG_FOLDER for `dsv4 serve`. Tables of `mxfp4-fp8token` go to a folder of that name in it, since their
files have the names of those of `mxfp4-fp8`. `keep` makes a result of the rows of one format: Humming's choice and the table's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qualification.gpu.expert_kernels import choose, cubin, kept, kernels, measure, schedules
from qualification.gpu.expert_kernels.layers import SUBLAYERS, TOKEN, USUAL, Layer
from qualification.gpu.expert_kernels.schedules import Schedule
from tools import kernel_instructions

MOST_STACK = 32
"""Bytes of stack that a kernel may have: more means that it keeps values of its loop in memory."""
PROMPT_STACK = 160
"""The same for steps of prompts: Humming's own choices have up to 80, and no more instructions in the loop for it."""
MOST_INSTRUCTIONS = 1.75
"""How many times the fewest instructions for each weight a kernel may take."""


def main() -> int:
    options, began = parsed(), time.monotonic()
    if options.step == "choose":
        return chosen(options)
    if options.step == "keep":
        kept.write(options.out, kept.of_humming(measure.read(options.rows), options))
        return 0
    if importlib.util.find_spec("humming") is None:
        raise SystemExit("Humming is not installed in this Python: install vLLM for CUDA, or humming-kernels.")
    layers = options.layers or [Layer(form, sublayer, 2) for form in USUAL for sublayer in SUBLAYERS]
    lists(layers, options)  # not in the process that measures, which is ended when it says nothing for long
    if options.step == "compile":
        return 0
    if options.step == "one":
        return one(options, layers)
    argv = ["-m", "qualification.gpu.expert_kernels", "one", "--kernels", options.kernels, "--out", options.out]
    argv += ["--replays", options.replays, *layers, "--seconds"]
    status = measure.guarded(list(map(str, argv)), options.out, os.environ, began + options.seconds)
    for line in measure.summary(measure.read(options.out)):
        print(line, flush=True)
    return status


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Faster kernels for experts than Humming's own choice.")
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("compile", "measure", "one"):
        step = steps.add_parser(name)
        step.add_argument("layers", nargs="*", type=Layer.parse)
        step.add_argument("--kernels", type=Path, required=True)
        step.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
        if name != "compile":
            step.add_argument("--out", type=Path, required=True)
            step.add_argument("--seconds", type=float, default=250.0)
            step.add_argument("--replays", type=int, default=7)
    step = steps.add_parser("choose")
    step.add_argument("rows", type=kept.rows_file)
    step.add_argument("--tables", type=Path, required=True)
    kept.add_step(steps).add_argument("--vllm", metavar="VERSION", required=True)
    return parser.parse_args()


def lists(layers: Sequence[Layer], options: argparse.Namespace) -> dict[Layer, dict[bool, Any]]:
    """Return the lists of layers, of decoding (False) and of prompts (True)."""
    folder, workers = options.kernels, options.workers
    return {layer: {kind: listed(layer, folder, workers, prompts=kind) for kind in (False, True)} for layer in layers}


def listed(layer: Layer, folder: Path, workers: int, *, prompts: bool) -> dict[str, Any]:
    """Compile what is tried for a layer and write beside the kernels what it is; read that where it is written already."""
    file = folder / f"{layer}{',prompts' if prompts else ''}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    began = time.monotonic()
    with kernels.without_gpu(), kernels.kept_in(folder):
        ranges = kernels.heuristic(layer)
        sizes = measure.PROMPTS if prompts else measure.DECODE
        own = {tokens: kernels.chosen(ranges, tokens * choose.TOP_K) for tokens in sizes}
        tried = kernels.candidates_for_prompts(layer) if prompts else kernels.candidates(layer)
        every = {schedules.name(one): one for one in [*own.values(), *tried]}
        made = kernels.compiled(layer, every.values(), workers)
        described = json.loads(kernels.config(layer).to_str())
    refused = {name: why for name, why in made.items() if isinstance(why, str)}
    files = {name: path for name, path in made.items() if isinstance(path, Path)}
    with ThreadPoolExecutor(workers) as pool:
        uses = dict(zip(files, pool.map(judged, files.values()), strict=True))
    alike: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, use in uses.items():  # products beside weights take instructions as well, more for larger tiles
        alike[every[name]["block_shape"][0] if prompts else 0][name] = use
    names = {schedules.name(one) for one in own.values()}.union(
        *(lean(some, PROMPT_STACK if prompts else MOST_STACK) for some in alike.values())
    )
    found = {
        "layer_config": described, "own": {tokens: schedules.name(one) for tokens, one in own.items()}, "refused": refused,
        "schedules": {name: {"schedule": every[name], "tried": name in names, **use} for name, use in uses.items()},
    }  # fmt: skip
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    number, seconds = sum(one["tried"] for one in found["schedules"].values()), time.monotonic() - began
    print(f"{file.stem}: {number} of {len(every)} kernels, {len(refused)} not compiled, {seconds:.0f} s", flush=True)
    return found


def judged(path: Path) -> dict[str, Any]:
    """Return what a kernel uses, with the instructions for each weight where nvdisasm is on PATH and finds the loop."""
    use = cubin.use(path)
    try:
        each = round(kernel_instructions.main_loop(kernel_instructions.disassembled(path)).each, 3)
    except (OSError, ValueError, subprocess.CalledProcessError):
        each = None
    return {"file": path.name, "registers": use.registers, "stack": use.stack, "instructions": each}


def lean(uses: dict[str, dict[str, Any]], most_stack: int = MOST_STACK) -> list[str]:
    """Return the kernels that keep their values in registers and take few instructions, as far as that is known."""
    least = min((use["instructions"] for use in uses.values() if use["instructions"]), default=0.0)
    return [
        name
        for name, use in uses.items()
        if use["stack"] <= most_stack and (use["instructions"] or 0.0) <= MOST_INSTRUCTIONS * least
    ]


def one(options: argparse.Namespace, layers: Sequence[Layer]) -> int:
    """Measure layers in this process, each for its share of the seconds that are left."""
    from qualification.gpu.expert_kernels import bench

    began = time.monotonic()
    for place, (layer, found) in enumerate(lists(layers, options).items()):
        here = time.monotonic()
        mine: dict[int, Schedule] = {}
        tried: dict[bool, list[Schedule]] = {}
        for prompts, made in found.items():
            mine |= {int(tokens): fixed(made["schedules"][name]["schedule"]) for tokens, name in made["own"].items()}
            tried[prompts] = [fixed(each["schedule"]) for each in made["schedules"].values() if each["tried"]]
        own = {tokens: mine[tokens] for tokens in measure.TOKENS if tokens in mine}
        with kernels.without_gpu(), kernels.kept_in(options.kernels):
            record = measure.Record(options.out, str(layer))
            record.begin("weights of the layer")
            held = bench.Bench(layer)
            record.add(
                device=bench.device_name(), layer_config=found[False]["layer_config"], humming=installed(),
                tried=sum(map(len, tried.values())),
                prepared_s=round(time.monotonic() - here, 1),
            )  # fmt: skip
            until = here + (began + options.seconds - here) / (len(layers) - place)
            measure.everything(
                held, record, tried, own, replays=options.replays, until=until, middle=bench.middle,
                difference=bench.difference,
            )  # fmt: skip
    return 0


def fixed(schedule: Schedule) -> Schedule:
    """Return a schedule that was read from JSON with the shapes as tuples, as Humming has them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in schedule.items()}


def installed() -> str:
    """Return Humming's version."""
    try:
        return version("humming-kernels")
    except PackageNotFoundError:
        return str(kernels.humming("_version").version)


def chosen(options: argparse.Namespace) -> int:
    """Write tables of what was measured, and print them; status 1 where nothing was faster."""
    rows = measure.read(options.rows)
    for line in measure.summary(rows):
        print(line)
    written = 0
    for choice in choose.choices(rows):
        tables = options.tables / (TOKEN if choice.format == TOKEN else "")  # vLLM's names do not tell it from groups
        tables.mkdir(parents=True, exist_ok=True)
        for sublayer, head in choice.heads.items():
            if ranges := choose.both_ranges(choice.tokens, choice.taken[sublayer]):
                file = tables / choose.file_name(head["layer_config"], head["device"])
                text = choose.table(head["layer_config"], kernels.COMPUTE, head["device"], head["humming"], ranges)
                file.write_text(text, encoding="utf-8")
                print(f"{head['layer']}: {len(ranges)} ranges in {file}")
                written += 1
    if not written:
        print(
            f"No table: {options.rows} has no layer, of which both products were measured, with a schedule that was faster."
        )
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
