"""
Compile DeepGEMM's kernels of a plan in many processes, before the start that needs them.

DeepGEMM compiles a kernel when it is first launched, 2 to 7 s each and one after the other. vLLM's own warmup of 823
shapes launches them in the one process of a rank: in the cache of an H200 host they came to 41 kernels, with 17 more of
the attention's output projection and of the hyper connections (vLLM 0.32.0, W4A16, TP=2, 2026-11-29). These launches
need no model, only tensors of its sizes, so processes of their own make them, and the start finds the kernels.

Only for SM 9.0, whose kernels these are. They are launched as vLLM launches them: deep_gemm_warmup.py, o_proj.py and
tilelang.py. Unmeasured: it has not run on a GPU yet.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import procfs
from ..plan import Plan
from ..resolve.select import Selection
from ..supervisor import kernel_cache
from . import sweep

if TYPE_CHECKING:
    from ...demo.v4_weights import Dims

log = logging.getLogger(__name__)

CAPABILITY = "9.0"
PROCESSES = 16
LIMIT = 180.0
"""Seconds; the start compiles what remains."""
DEVICE = "cuda"
_HEAD_DIM, _HC = 512, 4
_MIXES = _HC * (_HC + 2)
_BLOCK = 128  # of weights that share a scale
_LINEAR, _GROUPED, _HYPER = "linear", "grouped", "hyper connections"


@dataclass(frozen=True)
class Gemm:
    """A product of `tokens` x `k` and `k` x `n`, in `groups` of them."""

    kind: str
    n: int
    k: int
    groups: int = 1


@dataclass(frozen=True)
class PrebuiltGemms:
    """How many kernels were compiled, and how long it took; `failed` is what a process said that failed."""

    kernels: int
    seconds: float
    failed: str = ""


def gemms(sizes: Dims, ways: int) -> list[Gemm]:
    """Return the products of FP8 attention and of the hyper connections on one of so many GPUs."""
    attention = sizes.heads * _HEAD_DIM // ways
    groups = sizes.o_groups // ways
    return [
        Gemm(_LINEAR, sizes.q_lora + _HEAD_DIM, sizes.hidden),
        Gemm(_LINEAR, attention, sizes.q_lora),
        Gemm(_LINEAR, sizes.hidden, groups * sizes.o_lora),
        Gemm(_GROUPED, sizes.o_lora, attention // groups, groups),
        Gemm(_HYPER, _MIXES, _HC * sizes.hidden),
        Gemm(_HYPER, _MIXES, sizes.hidden),
    ]


def of_plan(selection: Selection, plan: Plan, environ: Mapping[str, str], folder: Path) -> PrebuiltGemms | None:
    """Compile what a plan needs into the folder of its kernels; None where no product is known, or it has them."""
    if selection.hardware.get("compute_capability") != CAPABILITY or kernel_cache.find(plan, folder).filled:
        return None
    try:
        from .without_weights import SIZES
    except ModuleNotFoundError:  # numpy, which comes with vLLM
        return None
    if (sizes := SIZES.get(str(selection.model.get("architecture")))) is None:
        return None
    plan = kernel_cache.placed(plan, environ, folder)
    tokens = {*sweep.lengths(plan), *plan.value("cudagraph-capture-sizes", ())}
    products = gemms(sizes, plan.tensor_parallel_size)
    variables = {**environ, **plan.environment()}
    found = compile_all(products, sorted(tokens), Path(variables["VLLM_CACHE_ROOT"]), variables, _cores())
    note = f"; one process failed: {found.failed}" if found.failed else ""
    log.info(f"DeepGEMM: {found.kernels} kernels compiled beforehand in {found.seconds:.0f} s{note}")
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def compile_all(
    products: Sequence[Gemm], tokens: Sequence[int], cache: Path, environ: Mapping[str, str], processes: int
) -> PrebuiltGemms:
    """
    Compile the kernels for steps of these tokens into `cache`, vLLM's cache folder (VLLM_CACHE_ROOT).

    Nothing is raised: what fails is compiled by the start.
    """
    began, before = time.monotonic(), _kernels(cache)
    environ = {**environ, "VLLM_CACHE_ROOT": str(cache)}
    count = max(1, min(PROCESSES, processes))
    work = {"gemms": [asdict(one) for one in products], "tokens": sorted(tokens), "of": count}
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_process({**work, "part": part}, environ)) for part in range(count)]
        failed = [_failure(one, began + LIMIT) for one in running]
    kernels = _kernels(cache) - before
    return PrebuiltGemms(kernels, round(time.monotonic() - began, 1), next(filter(None, failed), ""))


@contextlib.contextmanager
def _process(work: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, json.dumps(work)],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        preexec_fn=procfs.end_with_parent,  # noqa: PLW1509 - one system call, which needs no lock
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _failure(process: subprocess.Popen[str], until: float) -> str:
    try:
        _, output = process.communicate(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"not done after {LIMIT:.0f} s"
    return output.strip().rpartition("\n")[2][:300] if process.returncode else ""


def _kernels(cache: Path) -> int:
    return sum(1 for _ in (cache / "deep_gemm").rglob("kernel.cubin"))


def launches(products: Sequence[Gemm], lengths: Mapping[Gemm, Sequence[int]]) -> list[tuple[Gemm, int]]:
    """Return each product with each number of tokens, in an order that is the same everywhere, and mixed: neighbours
    need the same kernel, and two processes would compile it at the same time."""
    found = [(one, tokens) for one in products for tokens in lengths[one]]
    random.Random(0).shuffle(found)  # noqa: S311 - an order, no secret
    return found


def main(work: Mapping[str, Any]) -> None:
    """Launch one process's part; raise the last error when all were tried."""
    import torch
    from vllm.model_executor.warmup import deep_gemm_warmup as warmup

    products, tokens = [Gemm(**one) for one in work["gemms"]], work["tokens"]
    device = torch.device(DEVICE, 0)
    lengths = {
        one: sorted({*tokens, *(warmup._generate_optimal_warmup_m_values(tokens[-1], one.n, device))})  # noqa: SLF001
        for one in products
    }
    ready: dict[Gemm, Any] = {}
    failed: Exception | None = None
    for one, count in launches(products, lengths)[work["part"] :: work["of"]]:
        try:
            if one not in ready:
                ready[one] = _operands(torch, one, tokens[-1], device)
            _launch(one, count, *ready[one])
            torch.cuda.synchronize()
        except Exception as error:  # the other products are worth trying
            failed = error
    if failed:
        raise failed


def _operands(torch: Any, one: Gemm, tokens: int, device: Any) -> tuple[Any, ...]:
    """Return the operands and the result, as vLLM has them on SM 9.0."""
    fp8 = {"dtype": torch.float8_e4m3fn, "device": device}
    plain = {"dtype": torch.float32, "device": device}
    if one.kind == _HYPER:
        return torch.zeros(tokens, one.k, dtype=torch.bfloat16, device=device), torch.zeros(one.n, one.k, **plain)
    scales = (one.n // _BLOCK, one.k // _BLOCK)
    if one.kind == _LINEAR:
        inputs = torch.empty(tokens, one.k, **fp8), torch.zeros(tokens, one.k // _BLOCK, **plain)
        weight = torch.empty(one.n, one.k, **fp8), torch.zeros(scales, **plain)
        return *inputs, weight, torch.empty(tokens, one.n, dtype=torch.bfloat16, device=device)
    weight = torch.empty(one.groups, one.n, one.k, **fp8), torch.zeros(one.groups, *scales, **plain)
    inputs = (
        torch.empty(one.groups * tokens * one.k, **fp8),
        torch.zeros(one.groups * (tokens + 3) * one.k // _BLOCK, **plain),
    )
    return *inputs, weight, torch.empty(tokens, one.groups, one.n, dtype=torch.bfloat16, device=device)


def _launch(one: Gemm, count: int, *operands: Any) -> None:
    from vllm.utils import deep_gemm

    if one.kind == _HYPER:
        from vllm.model_executor.kernels.mhc import tilelang

        inputs, mixes = operands
        tilelang._hc_prenorm_gemm_outputs(inputs[:count], mixes, hidden_size=one.k // _HC, hc_mult=_HC)  # noqa: SLF001
        return
    inputs, scale, weight, result = operands
    if one.kind == _LINEAR:
        deep_gemm.fp8_gemm_nt((inputs[:count], scale[:count]), weight, result[:count])
        return
    # Group by group, and scales by column, each aligned to 4 tokens: as vLLM's quantization kernel writes both.
    aligned, blocks = -(-count // 4) * 4, one.k // _BLOCK
    values = inputs[: one.groups * count * one.k].view(one.groups, count, one.k).transpose(0, 1)
    columns = scale[: one.groups * blocks * aligned].view(one.groups, blocks, aligned).permute(2, 0, 1)[:count]
    deep_gemm.fp8_einsum("bhr,hdr->bhd", (values, columns), weight, result[:count], recipe=(1, _BLOCK, _BLOCK))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
