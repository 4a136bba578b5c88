"""Find settings of KV offloading that vLLM ignores, or with which it ends while it starts. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..kv_offloading import (
    BYTES,
    CONNECTOR,
    EXTRA,
    FILES,
    MOST_GIB,
    ROLE,
    SHM,
    SIZE,
    SPECS,
    TIERING,
    TYPES,
    Offloading,
    offloading_of,
    regions_of,
    whole,
)
from ..plan import Setting, Value, plain
from ..problem import Problem
from ..vllm_schema.schema import VERSION

RULE = "kv-offloading"
"""The name of the constraint, for `--skip`."""
SIMPLE = "VLLM_USE_SIMPLE_KV_OFFLOAD"
_LONGEST_NAME = 255
"""Bytes of a file's name in Linux."""
_CONFIG, _TABLE = "--kv-transfer-config", "kv_connector_extra_config"


def violations(flags: Mapping[str, Setting], env: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """Yield what is wrong with a plan's offloading (v1/kv_offload/, tiering/spec.py and factory.py there, 0.32.0)."""
    values, offloading = plain(flags), offloading_of(flags)
    for problem in _size(values.get(SIZE)):
        yield RULE, f"--{SIZE}", problem
    if offloading.connector and SIZE in flags and SIMPLE in env and env[SIMPLE].value != "0":
        seen = f"{SIMPLE} takes another connector, whose memory is neither counted nor checked"
        yield RULE, f"--{SIZE}", Problem(seen, "", f"leave {SIMPLE} unset")
    if values.get(CONNECTOR) and not values.get(ROLE):
        fix = 'set "kv_role" there, for KV offloading to "kv_both"'
        yield RULE, _CONFIG, Problem(f"vLLM {VERSION} ends with a kv_connector without kv_role", "", fix)
    if not all(map(_is_one_file, regions_of(flags))):
        fix = "leave engine_id out, or choose a short one without slashes"
        yield RULE, _CONFIG, Problem("engine_id cannot be part of a file's name, as vLLM has it in /dev/shm", "", fix)
    if not isinstance(values.get(EXTRA, {}), dict):
        yield RULE, _CONFIG, Problem(f"{_TABLE} is not a table", "", 'write it as {"key": 1}')
        return
    for problem in _problems(offloading, sized=values.get(SIZE) is not None) if offloading.connector else ():
        yield RULE, f"{_TABLE} of {_CONFIG}", problem


def _is_one_file(region: str) -> bool:
    """Tell whether a path in /dev/shm can be one of a file there: no folder, and no longer than Linux allows."""
    name = region.removeprefix(SHM)
    try:
        return not {"/", "\0"} & set(name) and len(os.fsencode(name)) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def _size(size: Value) -> Iterator[Problem]:
    if not isinstance(size, (int, float)):
        return
    if size <= 0:
        seen = f"vLLM {VERSION} ends with a size of {size:g}: `cpu_bytes_to_use must be specified`"
        yield Problem(seen, "", f"leave --{SIZE} out, and nothing is offloaded")
    elif size > MOST_GIB:
        yield Problem(f"no host has {size:g} GiB of memory", "", "write the size in GiB, as in 64")


def _problems(offloading: Offloading, *, sized: bool) -> Iterator[Problem]:
    yield from _spec(offloading)
    extra, known = offloading.extra, "spec_module_path" not in offloading.extra
    if not offloading.gib and not sized and known:
        given = f"{BYTES} = {str(extra[BYTES])[:40]} is not a size" if BYTES in extra else "KV offloading has no size"
        yield Problem(given, "", f"set --{SIZE} to GiB of host memory")
    if "block_size" in extra:
        seen = f"vLLM {VERSION} ends with block_size: the blocks of DeepSeek-V4's caches have several sizes"
        yield Problem(seen, "", "leave block_size out")
    if offloading.tiering:
        yield from _tiers(offloading, extra.get("secondary_tiers"))


def _spec(offloading: Offloading) -> Iterator[Problem]:
    """Yield what is wrong with `spec_name`: vLLM does not have it, or it reads no tiers."""
    name, fix = offloading.extra.get("spec_name"), f'set "spec_name" to "{TIERING}" there'
    if name is not None and str(name) not in SPECS:
        if "spec_module_path" not in offloading.extra:
            yield Problem(f"vLLM {VERSION} has no spec_name {name!r}", f"one of {', '.join(sorted(SPECS))}", fix)
    elif offloading.extra.get("secondary_tiers") and not offloading.tiering:
        seen = "without spec_name" if name is None else f"with spec_name {name}"
        yield Problem(f"vLLM {VERSION} ignores secondary_tiers {seen}", "", fix)


def _tiers(offloading: Offloading, tiers: Any) -> Iterator[Problem]:
    if (whole(offloading.extra.get("store_threshold")) or 0) > 1:
        yield Problem(f"store_threshold is not supported with {TIERING}", "", "leave store_threshold out")
    if tiers is not None and (not isinstance(tiers, list) or len(offloading.tiers) < len(tiers)):
        yield Problem(
            "secondary_tiers is not a list of tables", "", f'write [{{"type": "{FILES}", "root_dir": "/kv"}}]'
        )
    for tier in offloading.tiers:
        kind, folder = tier.get("type"), tier.get("root_dir")
        if not isinstance(kind, str) or (kind not in TYPES and "module_path" not in tier):
            known = ", ".join(sorted(TYPES))
            yield Problem(f"vLLM {VERSION} has no tier of type {kind!r}", f"one of {known}", f'write "{FILES}"')
        elif kind == FILES and not (isinstance(folder, str) and folder):
            yield Problem(f"a tier of type {FILES} names no folder", "", 'set its "root_dir" to a folder of a disk')
