"""
Draw docs/fit-*.svg: how many full-length requests fit at which context, per hardware, and how exact that is.

    python -m tools.fit_map

Computed by entrypoint/memory from the shipped profiles and from PLANNED; nothing is measured here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.memory.estimate import GIB, TRUNKS, Memory, memory
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import Found, select

ROOT = Path(__file__).resolve().parent.parent
PLANNED = ROOT / "tests/qualification/calibration/planned.json"
"""What vLLM's own planner answered."""
DOCS = ROOT / "docs"
DATE = "2026-11-22"
HARDWARE = ("rtx-pro-6000", "h200", "b300")
MODELS = ("acti", "w4a16", "nvfp4", "flash")
CONTEXTS = tuple(4096 << n for n in range(9))
MOST = 256
SIZES = (2, 4)
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 360, 250, 52, 64, 58
STYLE = """<style>
text{font:12px system-ui,sans-serif;fill:#1b1f24}.title{font-weight:600;font-size:14px}
.note{fill:#57606a;font-size:11px}.back{fill:#fff}.grid{stroke:#d8dee4;stroke-width:1}.band{fill:#eef1f4}polyline{fill:none;stroke-width:2}
.vllm{stroke-dasharray:3 4;stroke-width:1.5}.s0{stroke:#1f6feb}.s1{stroke:#b35900}.s2{stroke:#1a7f37}.s3{stroke:#8250df}
.dot{fill:#1f6feb}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9da7b3}.back{fill:#0d1117}.grid{stroke:#30363d}
.band{fill:#161b22}.s0{stroke:#58a6ff}.s1{stroke:#f0883e}.s2{stroke:#3fb950}.s3{stroke:#bc8cff}.dot{fill:#58a6ff}}
</style>"""


def facts(model: str, hardware: str, size: int) -> Memory | None:
    """Return the memory of a model on a hardware with the profile files' own settings; None where it is not offered."""
    request = Request(
        {key: Setting(value, "map") for key, value in (("profile", "524k"), ("model", model), ("hardware", hardware))},
        skip=("weights", "kv-cache"),
        command_line=Layer({"tensor-parallel-size": Setting(size, "map")}),
    )
    try:
        selection = select(Catalog([]), request, lambda: Found(hardware, "map"))
        return memory(selection, resolve(selection, request).flags)
    except ConfigError:
        return None


def across(context: float, left: float) -> float:
    """X of a context: the logarithm, from the smallest to the largest."""
    return left + WIDTH * math.log2(context / CONTEXTS[0]) / (len(CONTEXTS) - 1)


def up(requests: float) -> float:
    """Y of a number of requests: the logarithm, from 1 to MOST."""
    return TOP + HEIGHT * (1 - math.log2(min(max(requests, 1), MOST)) / math.log2(MOST))


def line(points: Iterable[tuple[float, float]], names: str, left: float) -> str:
    """Draw requests over contexts; where less than one fits, the line ends."""
    path = " ".join(f"{across(context, left):.1f},{up(n):.1f}" for context, n in points if n >= 1)
    return f'<polyline class="{names}" points="{path}"/>'


def text(x: float, y: float, words: str, names: str = "", anchor: str = "start") -> str:
    """Draw a word."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{names}" text-anchor="{anchor}">{words}</text>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    """Draw a line of the grid."""
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def page(width: float, parts: Iterable[str]) -> str:
    """Put the parts on a page of their own ground, readable in light and dark."""
    height = TOP + HEIGHT + BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" role="img">'
    return "\n".join([head, STYLE, f'<rect class="back" width="{width:.0f}" height="{height}"/>', *parts, "</svg>\n"])


def panel(hardware: str, size: int, left: float) -> Iterable[str]:
    """Draw one tensor parallel size."""
    yield text(left, TOP - 10, f"{size} GPUs (tensor parallel {size})")
    for context in CONTEXTS[::2]:
        x = across(context, left)
        yield rule(x, TOP, x, TOP + HEIGHT)
        yield text(x, TOP + HEIGHT + 16, f"{context // 1024}k" if context < 1 << 20 else "1M", anchor="middle")
    for requests in (1, 4, 16, 64, 256):
        yield rule(left, up(requests), left + WIDTH, up(requests))
        yield text(left - 8, up(requests) + 4, str(requests), anchor="end")
    for number, model in enumerate(MODELS):
        if (found := facts(model, hardware, size)) is None:
            continue
        at = [dataclasses.replace(found, context=context) for context in CONTEXTS]
        yield line(((m.context, m.concurrency if m.admits else 0) for m in at), f"vllm s{number}", left)
        yield line(((m.context, m.steady_state_requests) for m in at), f"s{number}", left)


def hardware_map(hardware: str) -> str:
    """Return the map of one hardware: requests over context, a line for each model."""
    step = WIDTH + LEFT + 14
    parts = [text(LEFT, 22, f"Full-length requests that fit at once: {hardware}", "title")]
    for number, size in enumerate(SIZES):
        parts += panel(hardware, size, LEFT + number * step)
    x = LEFT
    for number, model in enumerate(MODELS):
        parts += [f'<polyline class="s{number}" points="{x},{34} {x + 20},{34}"/>', text(x + 26, 38, model)]
        x += 90
    parts.append(text(x, 38, "solid: steady state; dashed: vLLM's maximum concurrency", "note"))
    note = (
        f"context across, requests up (logarithmic, up to {MOST}); max-num-batched-tokens as the files of profile 524k"
        f" set it; computed for vLLM 0.32.0, {DATE}"
    )
    return page(LEFT + len(SIZES) * step, [*parts, text(LEFT, TOP + HEIGHT + 42, note, "note")])


def calibration() -> str:
    """Return the error of fit.py against vLLM's planner, over the planner's own answer."""
    width, top = 2 * WIDTH, 32
    rows = [row for row in json.loads(PLANNED.read_text()) if "concurrency" in row]
    rows = [row for row in rows if f"deepseek-v4-{row['trunk']}" in TRUNKS]
    parts = [text(LEFT, 22, "Maximum concurrency: fit.py against vLLM 0.32.0's planner", "title")]

    def y(percent: float) -> float:
        return TOP + HEIGHT * (0.5 - percent / 6)

    parts.append(f'<rect class="band" x="{LEFT}" y="{y(2):.1f}" width="{width}" height="{y(-2) - y(2):.1f}"/>')
    for percent in (-2, 0, 2):
        parts += [
            rule(LEFT, y(percent), LEFT + width, y(percent)),
            text(LEFT - 8, y(percent) + 4, f"{percent:+d} %", "", "end"),
        ]
    for requests in (1, 2, 4, 8, 16, 32):
        x = LEFT + width * math.log2(requests) / math.log2(top)
        parts.append(text(x, TOP + HEIGHT + 16, f"{requests}x", anchor="middle"))
    worst = 0.0
    for row in rows:
        trunk = TRUNKS[f"deepseek-v4-{row['trunk']}"]
        given = Memory(1, 1, 1, 0, row["tp"], trunk, row["context"], row["batched_tokens"], 1, int(row["mtp"]))
        ours = dataclasses.replace(given, asynchronous=row["async"], cache_gib=row["available_bytes"] / GIB).concurrency
        off = 100 * (ours / row["concurrency"] - 1)
        worst = max(worst, abs(off))
        x = LEFT + width * math.log2(row["concurrency"]) / math.log2(top)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y(off):.1f}" r="4"/>')
    note = (
        f"{len(rows)} settings of Flash and Pro; largest error {worst:.2f} %; band: the 2 % allowed; computed, {DATE}"
    )
    return page(LEFT + width + 20, [*parts, text(LEFT, TOP + HEIGHT + 42, note, "note")])


def drawings() -> dict[str, str]:
    """Return every drawing by its file's name."""
    return {f"fit-{name}.svg": hardware_map(name) for name in HARDWARE} | {"fit-calibration.svg": calibration()}


if __name__ == "__main__":
    for name, drawing in drawings().items():
        (DOCS / name).write_text(drawing, encoding="utf-8")
        print(DOCS / name)
