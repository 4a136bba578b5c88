"""
Schedules for HUMMING's products of experts' weights that are worth a measurement: how a kernel cuts its work up.

HUMMING says what is legal (kernels.py asks it). Here is what is tried: tiles, the warps in them, how many blocks share a
processor, how deep each prefetches, and how it loads. Without HUMMING.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

Schedule = dict[str, Any]
SHARED_MEMORY, THREADS = 227 * 1024, 2048
"""Of one processor of Hopper."""
ROWS = {8: 76, 16: 54, 24: 4, 32: 6, 40: 1, 64: 1}
"""Rows of a tile, and how many schedules with them are tried at most; decode steps have few rows for each expert."""
MOST_MMA = 8
"""How many with MMA in place of WGMMA, which takes weights from registers as well but computes 16 rows at least."""
LOADING: dict[str, Schedule] = {
    "plain": {"use_warp_spec": False, "use_tma": False},
    "overlapped": {"use_warp_spec": False, "use_tma": False, "wgmma_split_issue_wait": True},
    "producer": {
        "use_warp_spec": True, "use_tma": True, "wgmma_split_issue_wait": True, "smem_reuse_mode": "none",
        "producer_stage_unroll": 1,
    },
}  # fmt: skip
"""Loads by all warps, the same with the tensor cores' work overlapped, or by a warp group of its own through TMA."""
INDEXED = dict.fromkeys(("use_tma_a", "use_tma_c", "use_tma_as", "use_tma_as2"), False)
"""What an indexed product cannot load by TMA."""
MOST_STAGES, LEAST_STAGES = 6, 3
LEAST_IN_FLIGHT = 60 * 1024
"""Bytes of weights that one processor loads ahead: above memory's latency times a processor's share of its rate."""
MOST_THREADS, GOOD_THREADS = 512, 512
"""Of one block, and of all blocks on a processor: enough to unpack weights, few enough for their registers."""


def proposed(rows: Iterable[int] = tuple(ROWS)) -> Iterator[Schedule]:
    """Yield every schedule to ask HUMMING about, with stages from the most to the least."""
    stages = range(MOST_STAGES, LEAST_STAGES - 1, -1)
    cuts = itertools.product(rows, (64, 128, 256), (64, 128, 256), (16, 32, 64), (32, 64, 128), (1, 2, 3, 4))
    for m, n, k, warp_n, warp_k, ctas in cuts:
        if warp_k > k or warp_n > n:
            continue
        for how, split, mma in itertools.product(LOADING, (False, True), ("wgmma", "mma")):
            if mma == "mma" and (how, m, warp_n, 2 * warp_k) != ("plain", 16, 32, k):
                continue  # as HUMMING's own policies use it: small tiles, two warps along K
            for depth in stages:
                yield {
                    "mma_type": mma, "block_shape": (m, n, k), "warp_shape": (m, warp_n, warp_k), "num_stages": depth,
                    "num_ctas_per_sm": ctas, "use_stream_k": split, **LOADING[how], **INDEXED,
                }  # fmt: skip


def threads(schedule: Schedule) -> int:
    """Return the threads of one block."""
    ratios = [block // warp for block, warp in zip(schedule["block_shape"], schedule["warp_shape"], strict=True)]
    return 32 * ratios[0] * ratios[1] * ratios[2] + (128 if schedule["use_warp_spec"] else 0)


def fits(schedule: Schedule, shared_memory: int) -> bool:
    """Return whether as many blocks as it wants find room on one processor, with the shared memory that each takes."""
    blocks = schedule["num_ctas_per_sm"]
    return blocks * shared_memory <= SHARED_MEMORY and blocks * threads(schedule) <= THREADS


def in_flight(schedule: Schedule) -> int:
    """Return the bytes of weights that one processor loads ahead."""
    _, n, k = schedule["block_shape"]
    return int(schedule["num_ctas_per_sm"]) * (int(schedule["num_stages"]) - 1) * n * k // 2


def family(schedule: Schedule) -> tuple[Any, ...]:
    """Return all of a schedule but how deep it loads and how many blocks share a processor."""
    rest = {key: value for key, value in schedule.items() if key not in {"num_stages", "num_ctas_per_sm"}}
    return tuple(sorted((key, str(value)) for key, value in rest.items()))


def deepest(schedules: Iterable[Schedule]) -> list[Schedule]:
    """Keep, of those that differ in their stages alone, the one with the most."""
    best: dict[tuple[Any, ...], Schedule] = {}
    for one in schedules:
        key = (*family(one), one["num_ctas_per_sm"])
        if key not in best or best[key]["num_stages"] < one["num_stages"]:
            best[key] = one
    return list(best.values())


def worthwhile(schedule: Schedule) -> bool:
    """Return whether a schedule loads far enough ahead without too many threads."""
    return in_flight(schedule) >= LEAST_IN_FLIGHT and threads(schedule) <= MOST_THREADS


def thinned(schedules: Iterable[Schedule]) -> list[Schedule]:
    """Keep as many schedules of each number of rows as ROWS says: from every family in turn, its best first."""
    groups: dict[int, dict[tuple[Any, ...], list[Schedule]]] = defaultdict(lambda: defaultdict(list))
    for one in schedules:
        groups[0 if one["mma_type"] == "mma" else one["block_shape"][0]][family(one)].append(one)
    kept: list[Schedule] = []
    for rows, found in groups.items():
        ranked = sorted((sorted(members, key=_rank) for members in found.values()), key=lambda one: _rank(one[0]))
        turns = itertools.chain.from_iterable(itertools.zip_longest(*ranked))
        kept += itertools.islice((one for one in turns if one), ROWS[rows] if rows else MOST_MMA)
    return kept


def _rank(schedule: Schedule) -> tuple[float, int]:
    together = threads(schedule) * int(schedule["num_ctas_per_sm"])
    return abs(together - GOOD_THREADS), -in_flight(schedule)


def name(schedule: Schedule) -> str:
    """Return a schedule in one short word."""
    block, warp = ("x".join(map(str, schedule[key])) for key in ("block_shape", "warp_shape"))
    marks = [f"s{schedule.get('num_stages', 2)}", f"c{schedule.get('num_ctas_per_sm', 1)}"]
    marks += ["k"] if schedule.get("use_stream_k", True) else []
    marks += ["ws"] if schedule.get("use_warp_spec") else ["tma"] if schedule.get("use_tma") else []
    marks += ["ov"] if schedule.get("wgmma_split_issue_wait") else []
    marks += ["late"] if schedule.get("wgmma_use_late_as") else []
    marks += ["mma"] if schedule.get("mma_type") == "mma" else []
    return f"{block}/{warp}-{'-'.join(marks)}"
