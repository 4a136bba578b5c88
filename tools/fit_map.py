"""
Draw docs/fit-*.svg: how many full-length requests fit at which context, per hardware, and how exact that is.

    python -m tools.fit_map

Computed by entrypoint/memory from the shipped profiles and from PLANNED; nothing is measured here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.memory.estimate import CACHE_LAYOUTS, GIB, MemoryEstimate
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tools.colours import BAND, NOTE, SERIES
from tools.pictures import PIXEL, note, svg, title

ROOT = Path(__file__).resolve().parent.parent
PLANNED = ROOT / "tests/qualification/calibration/planned.json"
"""What vLLM's own planner answered."""
DOCS = ROOT / "docs/explanation"
DATE = "2026-11-22"
HARDWARE = ("rtx-pro-6000", "h200", "b300")
MODELS = ("acti", "w4a16", "nvfp4", "flash")
CONTEXTS = tuple(4096 << n for n in range(9))
MOST = 256
SIZES = (2, 4)
DASHED: dict[str, Any] = {"linestyle": (0, (2, 3)), "linewidth": 1.5}


def facts(model: str, hardware: str, size: int) -> MemoryEstimate | None:
    """Return the memory of a model on a hardware with the profile files' own settings; None where it is not offered."""
    request = Request(
        {key: Setting(value, "map") for key, value in (("profile", "524k"), ("model", model), ("hardware", hardware))},
        skip=("weights", "kv-cache"),
        command_line=Layer({"tensor-parallel-size": Setting(size, "map")}),
    )
    try:
        selection = select(Catalog([]), request, lambda: HostGpus(hardware, "map"))
        return memory_inputs.estimate(selection, resolve(selection, request).flags)
    except ConfigError:
        return None


def panel(axes: Axes, hardware: str, size: int) -> None:
    """Draw one tensor parallel size: two lines for each model, which end where less than one request fits."""
    axes.set_title(f"{size} GPUs (tensor parallel {size})")
    for model, colour in zip(MODELS, SERIES, strict=False):
        if (found := facts(model, hardware, size)) is None:
            continue
        at = [dataclasses.replace(found, context=context) for context in CONTEXTS]
        admitted = [min(m.concurrency, MOST) if m.admits and m.concurrency >= 1 else math.nan for m in at]
        steady = [min(m.steady_state_requests, MOST) if m.steady_state_requests >= 1 else math.nan for m in at]
        axes.plot(CONTEXTS, admitted, color=colour, **DASHED)
        axes.plot(CONTEXTS, steady, color=colour)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlim(CONTEXTS[0], CONTEXTS[-1])
    axes.set_ylim(0.9, MOST)
    axes.set_xticks(CONTEXTS[::2], [f"{context // 1024}k" if context < 1 << 20 else "1M" for context in CONTEXTS[::2]])
    axes.set_yticks((1, 4, 16, 64, 256), ("1", "4", "16", "64", "256"))
    axes.minorticks_off()
    axes.set_xlabel("context, tokens")
    axes.set_ylabel("full-length requests at once")


def hardware_map(hardware: str) -> str:
    """Return the map of one hardware: requests over context, lines for each model."""
    figure = Figure(figsize=(860 * PIXEL, 400 * PIXEL))
    for size, axes in zip(SIZES, figure.subplots(1, len(SIZES)), strict=True):
        panel(axes, hardware, size)
    legend = [Line2D([], [], color=colour, label=model) for model, colour in zip(MODELS, SERIES, strict=False)]
    legend.append(Line2D([], [], color=NOTE, label="steady state"))
    legend.append(Line2D([], [], color=NOTE, label="vLLM's maximum concurrency", **DASHED))
    title(figure, f"Full-length requests that fit at once: {hardware}", legend)
    note(
        figure,
        f"up to {MOST} requests; max-num-batched-tokens as profile 524k sets it; computed for vLLM 0.32.0, {DATE}",
    )
    return svg(figure)


def calibration() -> str:
    """Return the error of our count against vLLM's planner, over the planner's own answer."""
    rows = [row for row in json.loads(PLANNED.read_text()) if "concurrency" in row]
    rows = [row for row in rows if f"deepseek-v4-{row['trunk']}" in CACHE_LAYOUTS]
    theirs = [row["concurrency"] for row in rows]
    errors = [100 * (_ours(row) / row["concurrency"] - 1) for row in rows]
    figure = Figure(figsize=(790 * PIXEL, 370 * PIXEL))
    axes = figure.subplots()
    title(figure, "Maximum concurrency: dsv4 fit against vLLM 0.32.0's planner")
    axes.axhspan(-2, 2, color=BAND)
    axes.plot(theirs, errors, "o", color=SERIES[0], markersize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks((1, 2, 4, 8, 16, 32), [f"{requests}x" for requests in (1, 2, 4, 8, 16, 32)])
    axes.minorticks_off()
    axes.set_ylim(-3, 3)
    axes.set_yticks((-2, 0, 2), ("-2 %", "0 %", "+2 %"))
    axes.set_xlabel("concurrency that the planner answers")
    axes.set_ylabel("error")
    worst = max(map(abs, errors))
    note(
        figure,
        f"{len(rows)} settings of Flash and Pro; largest error {worst:.2f} %; band: the 2 % allowed; computed, {DATE}",
    )
    return svg(figure)


def _ours(row: dict[str, Any]) -> float:
    layout = CACHE_LAYOUTS[f"deepseek-v4-{row['trunk']}"]
    given = MemoryEstimate(1, 1, 1, 0, row["tp"], layout, row["context"], row["batched_tokens"], 1, int(row["mtp"]))
    return dataclasses.replace(
        given, asynchronous=row["async"], kv_cache_memory_gib=row["available_bytes"] / GIB
    ).concurrency


def drawings() -> dict[str, str]:
    """Return every drawing by its file's name."""
    return {f"fit-{name}.svg": hardware_map(name) for name in HARDWARE} | {"fit-calibration.svg": calibration()}


if __name__ == "__main__":
    for name, drawing in drawings().items():
        (DOCS / name).write_text(drawing, encoding="utf-8")
        print(DOCS / name)
