"""
Make results of what speed.py measured, for `dsv4 bench compare` and docs/results/speed.md.

    python -m qualification.gpu.keep speed/b4/ours-warm.json speed/a4/stock-cold.json --out qualification/results

One result for each variant that has rows, with the date of its file; names of the host's folders are left out, and so are
the seconds in which a variant waited for another one's GPU (`--queued NAME`). `--host` is the host's DSV4_HOST.
"""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint import results
from dsv4_serve.entrypoint.bench import measure

HOST = "/root/dsv4-host"
STARTED = ("engine", "cache", "flags", "share", "tp", "replicas")
"""Settings of a variant by which it was started, beside variables; the others are in the rows."""
VARIABLES = ("NUM_SPECULATIVE_TOKENS", "VLLM_", "SGLANG_", "NCCL_", "DSV4_", "PYTHONPATH", "HOME", "XDG_CACHE_HOME")


def body(found: dict[str, Any], date: datetime, host: str = HOST) -> dict[str, Any]:
    """Return the result of one variant, as `dsv4 bench` writes it, with the phases, kernels and reason to end of it."""
    variant = found["variant"]
    served = measure.subject(found["replica"] or plain(found), found["weights"])
    if variant["share"] > 1:
        served = served.replace(f"-tp{variant['tp']}-", f"-share-of-{variant['share']}-")
    env = {name: value for name, value in variant["env"].items() if name.startswith(VARIABLES)}
    extra = {
        key: found[key]
        for key in ("swept", "kernels", "readyz", "beside", "returning", "failed", "tokens_a_step")
        if found.get(key)
    }
    text = json.dumps(
        {
            "date": date.isoformat(timespec="seconds"),
            "subject": f"{served}-{variant['name']}",
            "weights": found["weights"],
            "load": measure.LOAD,
            "variant": {key: variant[key] for key in STARTED} | {"env": env},
            "replica": found["replica"] or described(found),
            "start": found["start"],
            "ready_after": found["ready"],
            "rows": found["rows"],
            **extra,
        }
    )
    cleaned: dict[str, Any] = json.loads(re.sub(rf"{re.escape(host)}/(home/|speed/)?", "", text))
    return cleaned


def described(found: dict[str, Any]) -> dict[str, Any]:
    """Return what an engine without a plan told, which is its version, and the machine that it ran on."""
    versions = {"versions": {found["variant"]["engine"]: found["version"]}} if found.get("version") else {}
    return versions | ({"machine": found["machine"]} if found.get("machine") else {})


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """Return what names the result of plain vLLM or of SGLang, which have no plan."""
    variant = found["variant"]
    engine = {"vllm": "stock"}.get(variant["engine"], variant["engine"])
    hardware = found.get("hardware") or "h200"  # where none is named: results from before 2026-12
    choices = {"model-name": variant["model"], "hardware": hardware, "profile": engine}
    return {"choices": choices, "settings": {"tensor-parallel-size": {"value": variant["tp"]}}}


def main() -> None:
    """Write the results, and print where."""
    parser = argparse.ArgumentParser(description="Results of what speed.py measured.")
    parser.add_argument("results", type=Path, nargs="+", metavar="VARIANT.json")
    parser.add_argument("--out", type=Path, default=Path("qualification/results"))
    parser.add_argument("--host", default=HOST, help="the folder on the host, whose name is left out")
    parser.add_argument("--queued", nargs="+", default=[], metavar="NAME", help="variants that waited for their GPU")
    options = parser.parse_args()
    for path in options.results:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["variant"]["name"] in options.queued:
            found["ready"] = None
            found["start"]["phases"].pop("starting")
        if found["rows"]:
            date = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            print(results.write(options.out, "bench", body(found, date, options.host.rstrip("/"))))


if __name__ == "__main__":
    main()
