"""Find settings of KV offloading that vLLM ignores, or with which it ends while it starts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..kv_offloading import FILES, SIZE, TIERING, TYPES, Offloading, offloading_of
from ..plan import Setting
from ..problem import Problem
from ..vllm_schema.schema import VERSION

RULE = "kv-offloading"
"""The name of the constraint, for `--skip`."""
_TABLE = "kv_connector_extra_config"


def violations(flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """Yield what is wrong with the tiers of a plan (v1/kv_offload/tiering/spec.py and factory.py, 0.32.0)."""
    size = flags[SIZE].value if SIZE in flags else None
    if isinstance(size, (int, float)) and size <= 0:
        seen = f"vLLM {VERSION} ends with a size of {size:g}: `cpu_bytes_to_use must be specified`"
        yield RULE, f"--{SIZE}", Problem(seen, "", f"leave --{SIZE} out, and nothing is offloaded")
    offloading = offloading_of(flags)
    for problem in _problems(offloading) if offloading.connector else ():
        yield RULE, f"{_TABLE} of --kv-transfer-config", problem


def _problems(offloading: Offloading) -> Iterator[Problem]:
    tiers = offloading.extra.get("secondary_tiers")
    if tiers and "spec_name" not in offloading.extra:
        fix = f'set "spec_name" to "{TIERING}" there'
        yield Problem(f"vLLM {VERSION} ignores secondary_tiers without spec_name", "", fix)
    if not offloading.tiering:
        return
    if not offloading.gib:
        yield Problem(f"{TIERING} has no size", "", f"set --{SIZE}: tiers hold what passes through host memory")
    threshold = offloading.extra.get("store_threshold")
    if isinstance(threshold, int) and threshold > 1:
        yield Problem(f"store_threshold is not supported with {TIERING}", "", "leave store_threshold out")
    if tiers is not None and (not isinstance(tiers, list) or len(offloading.tiers) < len(tiers)):
        yield Problem(
            "secondary_tiers is not a list of tables", "", f'write [{{"type": "{FILES}", "root_dir": "/kv"}}]'
        )
    for tier in offloading.tiers:
        kind = tier.get("type")
        if kind not in TYPES and "module_path" not in tier:
            known = ", ".join(sorted(TYPES))
            yield Problem(f"vLLM {VERSION} has no tier of type {kind!r}", f"one of {known}", f'write "{FILES}"')
        elif kind == FILES and not tier.get("root_dir"):
            yield Problem(f"a tier of type {FILES} names no folder", "", 'set its "root_dir" to a folder of a disk')
