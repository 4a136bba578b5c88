"""
Propose changes to a plan, one at a time, those that promise most first. Pure.

Whether vLLM has a kernel, whether it fits and whether another setting speaks against it is not decided here: each
candidate is resolved like any other profile, and what does not resolve is left out (`setups.allowed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import draft_schedule
from ..draft_floors import DSPARK, METHOD, OF_MTP
from ..parallel import DATA_PARALLEL_SIZE, parallel_of
from ..plan import DRAFT_TOKENS, TENSOR_PARALLEL_SIZE, Plan, Value, plain
from ..resolve import cuda_graphs, drafting, kernels
from ..resolve.select import Selection
from ..vllm_schema import combinations
from . import predict

EXPERTS = "experts"
KINDS = ("drafts", EXPERTS, "collectives", "graphs", "steps", "scheduling", "parallelism")
NCCL = "nccl"
"""The key of a change that names a set of NCCL variables."""
WORST = -0.1
"""A candidate that is predicted to lose more is not tried."""
_DRAFTS = (1, 2, 3, 4, 5, 7)
_MOST_OF_A_KIND = 3
_NEVER = frozenset({"auto", "emulation", "batched_triton"})
_STEPS = (1024, 2048, 4096, 8192, 16384)
_GRAPHS = (4096, 8192)
_FEW = 4
"""Requests that `shared.toml` drafts for in full."""
_ALL_REDUCE = "disable-custom-all-reduce"


@dataclass(frozen=True)
class TuneCandidate:
    """
    One change: flags, or a set of NCCL variables under `nccl`.

    `gain` is the predicted share (None: unknown), and `because` says what it comes from.
    """

    name: str
    kind: str
    changes: Mapping[str, Value]
    because: str
    gain: float | None = None
    drops: frozenset[str] = field(default=frozenset())
    """Flags that another candidate may not set beside it."""

    def clashes(self, other: TuneCandidate) -> bool:
        """Tell whether two changes cannot be made together."""
        mine, theirs = {*self.changes, *self.drops}, {*other.changes, *other.drops}
        return self.kind == other.kind or bool(mine & theirs)


def propose(selection: Selection, plan: Plan, batches: Sequence[int], acceptance: float) -> list[TuneCandidate]:
    """Return every candidate for a plan that is served with these numbers of requests, the most promising first."""
    makers = (_drafts, _by_load, _experts, _collectives, _graphs, _steps, _scheduling, _parallelism)
    found = [one for make in makers for one in make(selection, plan, batches, acceptance)]
    return sorted(found, key=lambda one: -(one.gain or 0.0))


Candidates = Iterator[TuneCandidate]


def _drafts(selection: Selection, plan: Plan, batches: Sequence[int], acceptance: float) -> Candidates:
    before = plan.draft_tokens
    if not before or draft_schedule.of_plan(plain(plan.flags)):
        return
    method = plan.value(METHOD)
    most = selection.drafter.block_size if method == DSPARK else drafting.MOST_OF_MTP if method in OF_MTP else 0
    gains = {k: predict.gain(before, k, batches, acceptance) for k in _DRAFTS if k != before and k <= (most or k)}
    for k in sorted(gains, key=lambda k: -gains[k])[:_MOST_OF_A_KIND]:
        because = f"{k} draft token{'s' * (k > 1)} instead of {before}; computed for {acceptance:.0%} accepted each"
        yield TuneCandidate(f"drafts-{k}", "drafts", {DRAFT_TOKENS: k}, because, round(gains[k], 3))


def _by_load(_selection: Selection, plan: Plan, batches: Sequence[int], _acceptance: float) -> Candidates:
    before, requests = plan.draft_tokens, plan.value("max-num-seqs")
    scheduled = draft_schedule.of_plan(plain(plan.flags))
    if scheduled or not before or not isinstance(requests, int) or requests <= _FEW or max(batches) <= _FEW:
        return
    ranges = [[1, _FEW, before], [_FEW + 1, min(16, requests), max(0, min(3, before - 1))]]
    ranges += [[17, requests, 0]] if requests > 16 else []
    because = f"{draft_schedule.text(draft_schedule.loads(ranges, requests, before))}; unmeasured"
    changes = {draft_schedule.SCHEDULE: ranges}
    yield TuneCandidate("drafts-by-load", "drafts", changes, because, drops=frozenset({DRAFT_TOKENS}))


def _experts(selection: Selection, plan: Plan, batches: Sequence[int], _acceptance: float) -> Candidates:
    capability = selection.hardware.get("compute_capability")
    table = combinations.experts(selection.model.get("scheme"), capability) if capability else None
    if table is None:
        return
    layout, _ = kernels.mode(plan.flags)
    backend = table.chosen(kernels.effective(kernels.MOE, plan.flags)[0], layout)
    for other in table.runs:
        if other in _NEVER or other == backend or table.refusal(other, layout):
            continue
        gain = _marlin(batches) if (other, capability, backend) == ("marlin", "9.0", "humming") else None
        why = "1.016 times the tokens at batch 1 and 0.93 at 16 on H200" if gain is not None else "unmeasured"
        yield TuneCandidate(
            f"experts-{other.replace('_', '-')}", EXPERTS, {kernels.MOE: other},
            f"experts on {other} instead of {backend}; {why}", gain,
        )  # fmt: skip


def _marlin(batches: Sequence[int]) -> float:
    """Return Marlin's gain over Humming, measured at batch 1 and 16 (docs/results/speed.md)."""
    return round(sum(0.016 if batch <= _FEW else -0.07 for batch in batches) / len(batches), 3)


def _collectives(selection: Selection, plan: Plan, _batches: Sequence[int], _acceptance: float) -> Candidates:
    if parallel_of(plan.flags).gpus < 2:
        return
    if not plan.value(_ALL_REDUCE):
        because = "NCCL's all-reduce instead of vLLM's own, which takes 4 to 9 % of a step on 2 x H200; unmeasured"
        yield TuneCandidate("all-reduce-nccl", "collectives", {_ALL_REDUCE: True}, because)
    if selection.nccl is None or not selection.nccl.name.startswith("p2p-") or selection.catalog is None:
        return
    for name in selection.catalog.names("nccl"):
        if name.startswith("p2p-") and name != selection.nccl.name and not name.endswith("-nodes"):
            because = f"NCCL set {name} instead of {selection.nccl.name}; unmeasured"
            yield TuneCandidate(f"nccl-{name}", "collectives", {NCCL: name}, because, drops=frozenset({_ALL_REDUCE}))


def _graphs(selection: Selection, plan: Plan, _batches: Sequence[int], _acceptance: float) -> Candidates:
    flags, requests = plain(plan.flags), plan.value("max-num-seqs")
    capability, batched = selection.hardware.get("compute_capability"), plan.value("max-num-batched-tokens")
    eager = flags.get("enforce-eager") is True
    if not capability or eager or not isinstance(requests, int) or not isinstance(batched, int):
        return
    captured = cuda_graphs.captured(flags, requests, sm10=capability.startswith("10."))
    decoding = {k + 1: count for k, count in draft_schedule.tiers(flags, requests).items()}
    for longest in _GRAPHS:
        if max(captured, default=0) >= longest or longest > batched:
            continue
        sizes = [size for size in cuda_graphs.sizes(decoding, prompt_sizes(longest)) if size <= batched]
        gain = 0.03 if longest == _GRAPHS[0] else None
        known = "1.00 to 1.18 times the tokens on H200" if gain else "unmeasured"
        because = f"CUDA graphs for prompts of up to {longest:,} tokens; {known}"
        yield TuneCandidate(f"graphs-{longest}", "graphs", {cuda_graphs.SIZES: sizes}, because, gain)
        return


def prompt_sizes(longest: int) -> list[int]:
    """Return sizes from 64 tokens, four to each doubling, as the hardware file of H200 has them."""
    found: list[int] = []
    start = 64
    while start < longest:
        found += [start * quarters // 4 for quarters in (4, 5, 6, 7)]
        start *= 2
    return [*(size for size in found if size < longest), longest]


def _steps(_selection: Selection, plan: Plan, _batches: Sequence[int], _acceptance: float) -> Candidates:
    batched, graphs = plan.value("max-num-batched-tokens"), cuda_graphs.SIZES
    if not isinstance(batched, int):
        return
    larger = next((size for size in _STEPS if size > batched), None)
    smaller = next((size for size in reversed(_STEPS) if size < batched), None)
    if larger:
        because = f"{larger:,} tokens a step instead of {batched:,}; helps long prompts; unmeasured"
        yield TuneCandidate(f"step-{larger}", "steps", {"max-num-batched-tokens": larger}, because)
    if smaller:
        because = (
            f"{smaller:,} tokens a step instead of {batched:,}; 2,048 had 0.97 to 0.99 times those of 8,192 on H200"
        )
        changes = {"max-num-batched-tokens": smaller}
        yield TuneCandidate(f"step-{smaller}", "steps", changes, because, -0.02, frozenset({graphs}))


def _scheduling(_selection: Selection, plan: Plan, _batches: Sequence[int], _acceptance: float) -> Candidates:
    if plan.value("async-scheduling") is False:
        because = "asynchronous scheduling, which the plan turns off; 1.22 to 1.35 times the tokens on H200"
        yield TuneCandidate("async-scheduling", "scheduling", {"async-scheduling": True}, because, 0.25)


def _parallelism(_selection: Selection, plan: Plan, batches: Sequence[int], _acceptance: float) -> Candidates:
    shape = parallel_of(plan.flags)
    if shape.tensor < 2 or shape.data > 1 or shape.pipeline > 1 or shape.nodes > 1:
        return
    experts = "enable-expert-parallel"
    if not shape.expert:
        yield TuneCandidate("expert-parallel", "parallelism", {experts: True}, "experts split by GPU; unmeasured")
    if shape.tensor % 2 == 0 and max(batches) > 1:
        changes: dict[str, Any] = {TENSOR_PARALLEL_SIZE: shape.tensor // 2, DATA_PARALLEL_SIZE: 2, experts: True}
        if "max-num-seqs" in plan.flags:  # some files set it by size
            changes["max-num-seqs"] = plan.value("max-num-seqs")
        each = f"{shape.tensor // 2} GPU{'s' * (shape.tensor > 2)}"
        because = f"two replicas of {each}, experts split over all; unmeasured"
        yield TuneCandidate("data-parallel-2", "parallelism", changes, because)
