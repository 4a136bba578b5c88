"""
The variants of a file that speed.py measures.

What all have in common stands on top (names and defaults: DEFAULTS), then one `[[variant]]` each with a `name` and
settings of its own; flags and variables add up. `engine = "vllm"` is plain `vllm serve` and `"sglang"` is `sglang
serve`, with the same folder, as many draft tokens and only the variant's own flags; `trace = [1, 16]` adds a profile
of a few steps at these batch sizes, and `prompt_trace = [16000]` one of reading a prompt of so many tokens; `cache =
"cold"` compiles everything anew; `sweep = true` asks for the prompts of `dsv4 warm` first; `readyz = true` measures
the health server beside 200 streams; after `limit` seconds the next variant's turn has come; `also = [{batches = [1],
inputs = [2048]}]` adds rows, with their own `requests` if need be. `share = 2` with `tp = 1` serves on one GPU what
one of two would compute: the same kernels, and no all-reduce; `ways = 2` chooses `tp` and `share` so by the GPUs that
are given. `skip` names checks and constraints to skip. `history` is that of `dsv4 bench`; `beside = 131000` measures
short prompts while one of so many tokens is read; `returning = [[16384, 40]]` measures 40 conversations of so many tokens
that come back (returning.py); `replicas = 2` serves so often, `tp` GPUs each, behind HAProxy.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS, PLAIN, SGLANG = ENGINES = ("dsv4", "vllm", "sglang")
DEFAULTS: dict[str, Any] = {
    "model": "w4a16", "profile": "64k", "tp": 2, "acceptance": [0.89], "flags": [], "env": {}, "batches": [1, 4, 16],
    "inputs": [256], "output": 256, "requests": 4, "engine": OURS, "trace": [], "prompt_trace": [], "cache": "shared", "sweep": False,
    "readyz": False, "limit": 3600, "share": 1, "also": [], "ways": 0, "skip": [], "history": 0,
    "beside": 0, "returning": [], "replicas": 1,
}  # fmt: skip


def read(path: Path, gpus: int, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every variant, or those that are named, with what it does not say filled in."""
    common = tomllib.loads(path.read_text())
    each = common.pop("variant")
    common = {**DEFAULTS, **common}
    if unknown := {name for one in [common, *each] for name in one} - DEFAULTS.keys() - {"name"}:
        raise SystemExit(f"{path}: unknown {sorted(unknown)}; known are {sorted(DEFAULTS)}")
    merged = []
    for one in each:
        if (ways := one.get("ways", common["ways"])) and ways % gpus:
            raise SystemExit(f"{path}: {ways} ways cannot be served on {gpus} GPUs")
        shape = {"tp": gpus, "share": ways // gpus} if ways else {}
        if (engine := one.get("engine", common["engine"])) not in ENGINES:
            raise SystemExit(f"{path}: engine is one of {ENGINES}, not {engine!r}")
        flags = [*(common["flags"] if engine == OURS else []), *one.get("flags", [])]
        env = {**common["env"], **one.get("env", {})}
        merged.append({**common, **one, **shape, "flags": list(map(str, flags)), "env": env})
    if unknown := set(only) - {one["name"] for one in merged}:
        raise SystemExit(f"{path}: no variant {sorted(unknown)}; there are {[one['name'] for one in merged]}")
    chosen = [one for one in merged if not only or one["name"] in only]
    if shares := [one["name"] for one in chosen if one["engine"] == SGLANG and one["share"] > 1]:
        raise SystemExit(
            f"{path}: SGLang cannot serve one GPU's share ({', '.join(shares)}): FlashMLA refuses so few heads. "
            "Give it all GPUs with --gpus, or choose other variants with --only."
        )
    return chosen
