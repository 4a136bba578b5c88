"""
Make docs/results/qualification.md from the results in qualification/results/.

    python -m tools.qualification > docs/results/qualification.md
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# What was loaded, and how it drafted

Checkpoints with a known answer (real Flash dimensions, five layers, 16 experts; `demo/deepseek_v4.py`) in each
published layout, served through `dsv4 serve` with the patch series, or by stock vLLM.
`qualification/gpu/run_layouts.py` asks four prompts of 5 to 2300 tokens for 48 tokens each and compares every token.
*Accepted* is draft tokens accepted of those made, one a step. A head is `removed` (no draft tensor), `holed` (one
weight missing) or `scrambled` (weights shuffled in place): the first two have to be refused; the third cannot be told
from a good head while loading, and has to show in the counters. *Experts* is the backend of the target model's.
This table is made from the results in `qualification/results/` by `tools/qualification.py`. Speeds are not
measured here.
"""
OUTCOMES = {
    "served": "serves",
    "refused": "refused, by name",
    "reported": "serves; the counters show it",
    "failed": "does not start",
}


def main() -> int:
    """Print the page."""
    sys.stdout.write(page(read(ROOT / "qualification" / "results")))
    return 0


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the results of a folder in the order of the table."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(results, key=lambda r: (r["stock"], r["mtp"] != "good", r["mtp"], r["tp"], r["layout"], experts(r)))


def page(results: Iterable[dict[str, Any]]) -> str:
    """Return the page for results."""
    results = list(results)
    groups = {
        "With the series": [r for r in results if not r["stock"] and r["mtp"] == "good"],
        "With the series, draft heads that are not good": [r for r in results if not r["stock"] and r["mtp"] != "good"],
        "Stock vLLM, the same checkpoints": [r for r in results if r["stock"]],
    }
    tables = "".join(f"\n## {title}\n\n{table(group)}" for title, group in groups.items() if group)
    return HEAD + tables + notes(results)


def superseded() -> dict[str, dict[str, str]]:
    """Return what changed in patches since: by the SHA-256 that results have, by name where the patch is new."""
    return tomllib.loads((ROOT / "qualification" / "results" / "superseded.toml").read_text(encoding="utf-8"))


def notes(results: Iterable[dict[str, Any]]) -> str:
    """Return one line for each superseded or added patch, with the number of results that are older."""
    used = [r["patches"]["patches"] for r in results if not r["stock"]]
    lines = ""
    for key, entry in superseded().items():
        old = sum(key in {p["sha256"] for p in patches} for patches in used)
        without = sum(key not in {p["name"] for p in patches} for patches in used) if key == entry["patch"] else 0
        if old or without:
            verb = "changed" if old else "was added"
            lines += f"\n{old or without} results were made before `{entry['patch']}` {verb}: {entry['since']}.\n"
    return lines


def table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table, hardware and versions above it."""
    seen = sorted({f"{r['hardware']}, vLLM {r['versions']['vllm']}, {r['date']}" for r in results})
    lines = [
        f"{'; '.join(seen)}.",
        "",
        "| layout | draft head | TP | experts | result | tokens | accepted |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        outcome = OUTCOMES[r["result"]]
        if r["result"] == "failed":
            outcome += f": `{r['message'].partition('; ')[2][:90]}`"
        tokens, drafts = (f"{r[a]}/{r[b]}" if a in r else "" for a, b in (("right", "asked"), ("accepted", "drafted")))
        lines.append(f"| {r['layout']} | {r['mtp']} | {r['tp']} | {experts(r)} | {outcome} | {tokens} | {drafts} |")
    return "\n".join(lines) + "\n"


def experts(result: dict[str, Any]) -> str:
    """Return the backend of the target model's experts, as vLLM logged it; empty where it came to no experts."""
    found = (re.match(r"Using '(\w+)' \w+ MoE backend", line) for line in result.get("backends", []))
    return next((match[1].lower() for match in found if match), "")


if __name__ == "__main__":
    sys.exit(main())
