"""
Which sizes of prompts a plan captures as CUDA graphs: those of its hardware's file for which memory is left. Pure.

A step that is no graph is launched kernel by kernel, so the first token of a short prompt waits for the host. A graph
takes memory that the KV cache then lacks. Where the file's sizes were measured, all of them are captured. Elsewhere
the longest are left out until the plan holds the requests that it promises, as `dsv4 fit` counts them.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping, Sequence

from ..draft_schedule import tiers
from ..memory.estimate import MemoryEstimate
from ..plan import Setting, plain
from . import cuda_graphs, memory_inputs
from .cuda_graphs import SIZES
from .select import Selection

CHOICE, _BATCHED = "prompt graphs", "max-num-batched-tokens"
"""The row of `explain` that says why a plan has none though its hardware's file names some."""


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """The sizes of a file, the most requests that decode together by the tokens of a step, and the longest step."""

    origin: str
    prompts: Sequence[int]
    decoding: Mapping[int, int]
    longest: int

    @property
    def possible(self) -> list[int]:
        """The sizes of prompts that a step may have, ascending."""
        return sorted({size for size in self.prompts if size <= self.longest})

    def captured(self, prompts: Sequence[int]) -> list[int]:
        """Return these sizes of prompts with those of decode steps."""
        return [size for size in cuda_graphs.sizes(self.decoding, [*prompts]) if size <= self.longest]

    def setting(self, prompts: Sequence[int], upto: str = "") -> Setting:
        """Return the flag, with where it comes from."""
        steps = ", ".join(
            f"{count} requests of {step} token{'s' * (step > 1)}"
            for step, count in sorted(self.decoding.items(), reverse=True)
        )
        return Setting(self.captured(prompts), f"{self.origin}{upto}, and {steps} per step")


def settle(selection: Selection, flags: dict[str, Setting]) -> dict[str, Setting]:
    """
    Set the sizes to capture, none above the tokens of a step. Return what `explain` shows beside the flags.

    Nothing is set if the hardware names no sizes, or if another layer sets graphs.
    """
    prompts, requests = selection.hardware.get("prompt_graphs"), flags.get("max-num-seqs")
    if not prompts or requests is None or any("cudagraph" in name or name == "enforce-eager" for name in flags):
        return {}
    decoding = {tokens + 1: count for tokens, count in tiers(plain(flags), int(requests.value)).items()}
    origin, batched = f"{selection.hardware.file_of('prompt_graphs')} prompt-graphs", flags.get(_BATCHED)
    sizes = _Sizes(origin, prompts, decoding, batched.value if batched else max(prompts))
    if selection.hardware.get("prompt_graphs_measured"):
        flags[SIZES] = sizes.setting(prompts)
        return {}
    if reason := memory_inputs.unsized(selection, flags):
        return {CHOICE: Setting("none", f"{origin}: what they leave for requests is not counted: {reason}")}
    memory = memory_inputs.estimate(selection, flags)
    if memory is None or not memory.graphs or not sizes.possible:
        return {}
    return _as_far_as_memory_is_left(selection, flags, sizes, memory)


def _as_far_as_memory_is_left(
    selection: Selection, flags: dict[str, Setting], sizes: _Sizes, memory: MemoryEstimate
) -> dict[str, Setting]:
    possible = sizes.possible

    def too_many(count: int) -> bool:
        values = {**plain(flags), SIZES: sizes.captured(possible[:count])}
        return not _holds(memory, memory_inputs.graphs(selection, values, memory.sequences))

    promised = f"{memory.requests} request{'s' * (memory.requests > 1)} of full length that the plan promises"
    if not _holds(memory, memory.graphs):
        return {CHOICE: Setting("none", f"{sizes.origin}: without them too, there is no memory for the {promised}")}
    fitting = bisect.bisect_left(range(1, len(possible) + 1), True, key=too_many)
    taken, out = possible[:fitting], possible[fitting:]
    left_out = f"no memory for {_span(out)} beside the {promised}" if out else ""
    if not taken or (out and taken[-1] <= max(memory.graphs)):
        reached = f", and vLLM's own sizes reach {max(memory.graphs):,}" if taken else ""
        return {CHOICE: Setting("none", f"{sizes.origin}: {left_out}{reached}")}
    flags[SIZES] = sizes.setting(taken, f" to {taken[-1]:,} tokens ({left_out})" if out else "")
    return {}


def _holds(memory: MemoryEstimate, graphs: Sequence[int]) -> bool:
    """
    Tell whether a plan with these graphs holds the requests that it promises, as certainly as with its own.

    Where `kv-cache-memory-bytes` sets the KV cache, graphs have to leave room for it.
    """
    changed = dataclasses.replace(memory, graphs=tuple(graphs))
    if changed.steady_state_requests < changed.requests:
        return False
    if (fixed := changed.kv_cache_memory_gib) is not None:
        return dataclasses.replace(changed, kv_cache_memory_gib=None).kv_available_gib >= fixed
    return changed.at_worst.admits or not memory.at_worst.admits


def _span(sizes: Sequence[int]) -> str:
    return f"{sizes[0]:,} to {sizes[-1]:,} tokens" if len(sizes) > 1 else f"{sizes[0]:,} tokens"
