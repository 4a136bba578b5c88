"""
The tables that vLLM reads, from measurements: for ranges of rows, schedules that were faster than Humming's own.

Gate and up (`w13`) are chosen with down (`w2`): where their tiles have different rows, vLLM sorts rows by expert twice.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qualification.gpu.expert_kernels import schedules
from qualification.gpu.expert_kernels.layers import SUBLAYERS, TOP_K, Layer
from qualification.gpu.expert_kernels.measure import MOST_ERROR, Row, prompts
from qualification.gpu.expert_kernels.schedules import Schedule

LEAST_GAIN = 0.02
"""A schedule that gains less is not worth a kernel of its own; it has to gain more than twice the noise, too."""
ALIKE = 0.01
"""Times that differ by less count as the same; the schedule that is good at more numbers of tokens is taken then."""


@dataclass(frozen=True)
class Measured:
    """One schedule at one number of tokens: its median in µs, and the spread of its times as a share of that."""

    schedule: Schedule
    us: float
    spread: float
    own: bool

    @property
    def name(self) -> str:
        """Return the schedule in a word."""
        return schedules.name(self.schedule)

    @property
    def rows(self) -> int:
        """Return the rows of its tiles."""
        return int(self.schedule["block_shape"][0])


Times = dict[int, list[Measured]]
"""By number of tokens."""


def times(rows: Iterable[Row], layer: str) -> Times:
    """Return what was measured of a layer, without wrong results."""
    found: Times = {}
    for row in rows:
        if row["layer"] == layer and "us" in row and row["error"] <= MOST_ERROR:
            one = Measured(row["schedule"], row["us"], row["spread"], row["own"])
            found.setdefault(row["tokens"], []).append(one)
    return {tokens: each for tokens, each in sorted(found.items()) if any(one.own for one in each)}


def sorting(rows: Iterable[Row]) -> dict[int, float]:
    """Return the µs that sorting rows by expert takes, by tokens: the middle of what was measured."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if "align_us" in row:
            found.setdefault(row["tokens"], []).append(row["align_us"])
    return {tokens: statistics.median_high(each) for tokens, each in found.items()}


@dataclass(frozen=True)
class Choice:
    """What was measured of both products of one format on so many GPUs, and what is taken; by sublayer."""

    format: str
    ways: int
    heads: Mapping[str, Row]
    found: Mapping[str, Times]
    taken: Mapping[str, Mapping[int, Schedule]]

    @property
    def tokens(self) -> list[int]:
        """The numbers of tokens at which both products were measured."""
        return common(self.found)


def choices(rows: Sequence[Row]) -> Iterator[Choice]:
    """Choose for each format and number of GPUs, of which both products were measured."""
    heads = {row["layer"]: row for row in rows if "layer_config" in row}
    for form, ways in sorted({(layer.format, layer.ways) for layer in map(Layer.parse, heads)}):
        names = {sublayer: str(Layer(form, sublayer, ways)) for sublayer in SUBLAYERS}
        if heads.keys() >= set(names.values()):
            found = {sublayer: times(rows, name) for sublayer, name in names.items()}
            of_layers = {sublayer: heads[name] for sublayer, name in names.items()}
            yield Choice(form, ways, of_layers, found, together(found, sorting(rows)))


def common(found: Mapping[str, Times]) -> list[int]:
    """Return the numbers of tokens at which all products were measured."""
    return sorted(set.intersection(*(set(one) for one in found.values())))


def good_at(found: Times) -> Counter[str]:
    """Return at how many numbers of tokens each schedule is about as fast as the best."""
    count: Counter[str] = Counter()
    for each in found.values():
        best = min(one.us for one in each)
        count.update({one.name for one in each if one.us <= best * (1 + ALIKE)})
    return count


def together(found: Mapping[str, Times], again: Mapping[int, float]) -> dict[str, dict[int, Schedule]]:
    """
    Return the schedules that are taken in place of Humming's, by sublayer and tokens, with the µs that sorting `again` costs.

    Both sublayers of a step are chosen at once, or none.
    """
    taken: dict[str, dict[int, Schedule]] = {sublayer: {} for sublayer in found}
    popular = {sublayer: good_at(one) for sublayer, one in found.items()}
    for tokens in common(found):
        up, down = (found[sublayer][tokens] for sublayer in SUBLAYERS)
        pairs = [(a, b, a.us + b.us + (again.get(tokens, 0.0) if a.rows != b.rows else 0.0)) for a in up for b in down]
        own = next(pair for pair in pairs if pair[0].own and pair[1].own)
        least = min(us for _, _, us in pairs)
        alike = [pair for pair in pairs if pair[2] <= least * (1 + ALIKE)]
        best = max(alike, key=lambda pair: (popular["w13"][pair[0].name] + popular["w2"][pair[1].name], -pair[2]))
        noise = max(one.spread for pair in (best, own) for one in pair[:2])
        if 1 - best[2] / own[2] > max(LEAST_GAIN, 2 * noise):
            for sublayer, one in zip(SUBLAYERS, best[:2], strict=True):
                taken[sublayer][tokens] = one.schedule
    return taken


def both_ranges(measured: Sequence[int], taken: Mapping[int, Schedule]) -> list[tuple[int, int, Schedule]]:
    """Return the ranges of decoding and those of prompts, which begin half a step of two below the first; Humming decides between."""
    decode, read = ([at for at in measured if prompts(at) == kind] for kind in (False, True))
    found = ranges(decode, taken) if decode else []
    return found + (ranges(read, taken, math.isqrt(min(read) ** 2 // 2)) if read else [])


def ranges(measured: Sequence[int], taken: Mapping[int, Schedule], begin: int = 0) -> list[tuple[int, int, Schedule]]:
    """
    Return schedules for more than so many rows, and up to so many.

    Between two numbers of tokens that were measured the border is their geometric mean; above the last one Humming decides.
    """
    tokens = sorted(measured)
    ends = [*(math.isqrt(low * high) for low, high in itertools.pairwise(tokens)), tokens[-1]]
    found: list[tuple[int, int, Schedule]] = []
    for at, low, high in zip(tokens, [begin, *ends[:-1]], ends, strict=True):
        if at not in taken:
            continue
        if found and found[-1][1] == low * TOP_K and found[-1][2] == taken[at]:
            found[-1] = (found[-1][0], high * TOP_K, taken[at])
        else:
            found.append((low * TOP_K, high * TOP_K, taken[at]))
    return found


def file_name(layer: Mapping[str, Any], device: str) -> str:
    """Return the name under which vLLM looks for a layer's table."""
    names = {"E": "num_experts", "N": "shape_n", "K": "shape_k", "a_dtype": "a_dtype", "b_dtype": "b_dtype"}
    shape = ",".join(f"{short}={layer[long]}" for short, long in names.items())
    return f"humming_moe,{shape},device_name={device.replace(' ', '_')}.json"


def table(
    layer: Mapping[str, Any],
    compute: Mapping[str, Any],
    device: str,
    version: str,
    found: Sequence[tuple[int, int, Schedule]],
) -> str:
    """Return a table's text."""
    lines = ",\n".join("    " + json.dumps(one) for one in found)
    head = {"humming_version": version, "device_name": device, "layer_config": layer, "compute_config": compute}
    fields = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items())
    return f'{{\n{fields},\n  "tuning_config": [\n{lines}\n  ]\n}}\n'
