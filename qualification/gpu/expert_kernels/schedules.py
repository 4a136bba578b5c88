"""
Schedules for Humming's products of experts' weights that are worth a measurement: how a kernel cuts its work up.

Steps of decoding, which are bound by the bytes of weights, and steps of prompts, bound by products, have lists of their
own. Humming says what is legal (kernels.py asks it). Here is what is tried: tiles, the warps in them, how many blocks share a
processor, how deep each prefetches, and how it loads. Without Humming.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Schedule = dict[str, Any]
SHARED_MEMORY, THREADS = 227 * 1024, 2048
"""Bytes and threads of one processor of Hopper."""
ROWS = {8: 76, 16: 54, 24: 4, 32: 6, 40: 1, 64: 1}
"""Rows of a tile, and how many schedules with them are tried at most; decode steps have few rows for each expert."""
MOST_MMA = 8
"""How many with MMA in place of WGMMA, which takes weights from registers as well but computes 16 rows at least."""
PROMPT_ROWS = {32: 6, 40: 4, 48: 6, 64: 10, 80: 6, 96: 10, 112: 4, 128: 8, 192: 4, 256: 2}
"""The same for steps of prompts, which have tens of rows for each expert."""
LOADING: dict[str, Schedule] = {
    "plain": {"use_warp_spec": False, "use_tma": False},
    "overlapped": {"use_warp_spec": False, "use_tma": False, "wgmma_split_issue_wait": True},
    "producer": {
        "use_warp_spec": True, "use_tma": True, "wgmma_split_issue_wait": True, "smem_reuse_mode": "none",
        "producer_stage_unroll": 1,
    },
}  # fmt: skip
"""Loads by all warps, the same with the tensor cores' work overlapped, or by a warp group of its own through TMA."""
FEEDING: dict[str, Schedule] = {
    "feeding": {"use_warp_spec": True, "use_tma": True, "smem_reuse_mode": "none", "producer_stage_unroll": 2},
}
"""By a warp group of its own, two stages at a time, without overlap: Humming's choice for FP8 inputs with a scale a token."""
INDEXED = dict.fromkeys(("use_tma_a", "use_tma_c", "use_tma_as", "use_tma_as2"), False)
"""What an indexed product cannot load by TMA."""
MOST_STAGES, LEAST_STAGES = 6, 3
LEAST_IN_FLIGHT = 60 * 1024
"""Bytes of weights that one processor loads ahead: above memory's latency times a processor's share of its rate."""
MOST_THREADS, GOOD_THREADS = 512, 512
"""Of one block, and of all blocks on a processor: enough to unpack weights, few enough for their registers."""
PROMPT_THREADS, REGISTERS, MOST_REGISTERS, OTHER_REGISTERS = 640, 65536, 255, 44
"""Of a block for prompts; of a processor, of one thread, and of one thread beside its sums and weights."""
NEAR_ROWS = 4 / 3
"""How many times an expert's mean rows a tile's rows are at most, or the other way round, in a step of the other kind."""


def loading(fp8: bool, groups: bool) -> dict[str, Schedule]:
    """Return how kernels of decode steps load that are tried for such inputs."""
    return LOADING | FEEDING if fp8 and not groups else LOADING


def proposed(loading: Mapping[str, Schedule] = LOADING) -> Iterator[Schedule]:
    """Yield every schedule to ask Humming about, with stages from the most to the least."""
    stages = range(MOST_STAGES, LEAST_STAGES - 1, -1)
    cuts = itertools.product(ROWS, (64, 128, 256), (64, 128, 256), (16, 32, 64), (32, 64, 128), (1, 2, 3, 4))
    for m, n, k, warp_n, warp_k, ctas in cuts:
        if warp_k > k or warp_n > n:
            continue
        for how, split, mma in itertools.product(loading, (False, True), ("wgmma", "mma")):
            if mma == "mma" and (how, m, warp_n, 2 * warp_k) != ("plain", 16, 32, k):
                continue  # as Humming's own policies use it: small tiles, two warps along K
            for depth in stages:
                yield {
                    "mma_type": mma, "block_shape": (m, n, k), "warp_shape": (m, warp_n, warp_k), "num_stages": depth,
                    "num_ctas_per_sm": ctas, "use_stream_k": split, **loading[how], **INDEXED,
                }  # fmt: skip


def proposed_for_prompts(fp8: bool, groups: bool) -> Iterator[Schedule]:
    """Yield schedules for many rows: large tiles whose sums stay in registers, without a split along K."""
    cuts = itertools.product(PROMPT_ROWS, (1, 2), (256, 128), (128, 64), (16, 32, 64), (1, 2), LOADING, (1, 4))
    for m, warps_m, n, k, warp_n, ctas, how, raster in cuts:
        if m // warps_m % 8 or (warps_m > 1 and m < 128) or (m > 48 and k == 128 and not fp8):
            continue  # each of two warps along the rows unpacks the same weights; two along K have sums of their own
        both = how == "producer" and m >= 96 and n == 256
        if raster != (4 if m >= 48 and n == 256 else 1) and not both:
            continue  # what Humming's own policies take for such a tile
        for late, depth in itertools.product((False, True), range(MOST_STAGES, LEAST_STAGES - 1, -1)):
            one = {
                "mma_type": "wgmma", "block_shape": (m, n, k), "warp_shape": (m // warps_m, warp_n, k if fp8 else 64),
                "num_stages": depth, "num_ctas_per_sm": ctas, "use_stream_k": False, **LOADING[how], **INDEXED,
                "raster_group_m": raster,
            }  # fmt: skip
            if late != (groups and warp_n == 16 and "wgmma_split_issue_wait" in one):
                continue  # as above
            one |= {"wgmma_use_late_as": True} if late else {}
            most = registers(one) - OTHER_REGISTERS - warp_n // 2 - (8 if groups else 0)
            if threads(one) <= PROMPT_THREADS and sums(one, groups) <= most:
                yield one


def sums(schedule: Schedule, groups: bool) -> int:
    """Return the registers of a thread for its sums: groups of inputs have sums beside those of the product."""
    m, n, _ = schedule["warp_shape"]
    return int(m * n // 32) * (2 if groups else 1)


def registers(schedule: Schedule) -> int:
    """Return the registers that a thread can have which multiplies."""
    loading = 128 if schedule["use_warp_spec"] else 0
    most, blocks = MOST_REGISTERS - (7 if loading else 0), schedule["num_ctas_per_sm"]
    return min(most, (REGISTERS // blocks - 40 * loading) // (threads(schedule) - loading))


def near(schedule: Schedule, mean: float) -> bool:
    """Return whether a tile's rows are about those that an expert has on average."""
    rows = schedule["block_shape"][0]
    return max(rows / mean, mean / rows) <= NEAR_ROWS


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


def decode_rank(schedule: Schedule) -> tuple[float, int]:
    """Return a smaller value for what is more likely to be fast in a step of decoding."""
    together = threads(schedule) * int(schedule["num_ctas_per_sm"])
    return abs(together - GOOD_THREADS), -in_flight(schedule)


def prompt_rank(schedule: Schedule) -> tuple[float, ...]:
    """Return the same for a step of prompts."""
    m, n, _ = schedule["block_shape"]
    return not schedule["use_warp_spec"], -m * n, -in_flight(schedule)


def thinned(
    schedules: Iterable[Schedule],
    most: Mapping[int, int] = ROWS,
    rank: Callable[[Schedule], tuple[float, ...]] = decode_rank,
) -> list[Schedule]:
    """Keep as many schedules of each number of rows as `most` says: from every family in turn, its best first."""
    groups: dict[int, dict[tuple[Any, ...], list[Schedule]]] = defaultdict(lambda: defaultdict(list))
    for one in schedules:
        groups[0 if one["mma_type"] == "mma" else one["block_shape"][0]][family(one)].append(one)
    kept: list[Schedule] = []
    for rows, found in groups.items():
        ranked = sorted((sorted(members, key=rank) for members in found.values()), key=lambda one: rank(one[0]))
        turns = itertools.chain.from_iterable(itertools.zip_longest(*ranked))
        kept += itertools.islice((one for one in turns if one), most[rows] if rows else MOST_MMA)
    return kept


def name(schedule: Schedule) -> str:
    """Return a schedule in one short word."""
    block, warp = ("x".join(map(str, schedule[key])) for key in ("block_shape", "warp_shape"))
    marks = [f"s{schedule.get('num_stages', 2)}", f"c{schedule.get('num_ctas_per_sm', 1)}"]
    marks += ["k"] if schedule.get("use_stream_k", True) else []
    marks += ["ws"] if schedule.get("use_warp_spec") else ["tma"] if schedule.get("use_tma") else []
    marks += ["ov"] if schedule.get("wgmma_split_issue_wait") else []
    marks += ["late"] if schedule.get("wgmma_use_late_as") else []
    marks += [f"r{raster}"] if (raster := schedule.get("raster_group_m", 1)) > 1 else []
    marks += ["mma"] if schedule.get("mma_type") == "mma" else []
    return f"{block}/{warp}-{'-'.join(marks)}"
