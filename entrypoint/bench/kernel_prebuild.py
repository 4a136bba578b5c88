"""
Compile kernels of a plan in many processes, before the start that would compile them one after the other.

In a first start of 643 s, DeepGEMM compiled 76 kernels in 283 s and TileLang 11 in 122 s, in the one process of a rank
(one GPU's share of two, H200, vLLM 0.32.0, W4A16, profile 524k, 2026-11-29). DeepGEMM compiles a kernel when it is
launched for the first time, and TileLang one for each number of splits of a sum. Neither needs the model, only its
sizes. So processes of their own do both, and the start finds the kernels.

Only for SM 9.0. Everything is launched as vLLM launches it: deep_gemm_warmup.py, o_proj.py and tilelang_kernels.py.
On a host with 32 cores, 16 processes compiled 83 kernels in 88 s, and the start after them took 244 s.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

from .. import procfs
from ..catalog import demo_layout
from ..client import local_replica
from ..parallel import parallel_of
from ..plan import Plan
from ..resolve.select import Selection
from ..supervisor import kernel_cache
from ..weights import prefetch
from . import sweep
from .kernel_products import BLOCK, HC, HYPER, LINEAR, Gemm, gemms

if TYPE_CHECKING:
    from ...demo.v4_weights import Dims

log = logging.getLogger(__name__)

CAPABILITY = "9.0"
PROCESSES = 16
MEMORY = 4 << 30
"""Bytes of host memory that a process may take: CUDA, torch and a compiler. Unmeasured."""
LIMIT = 180.0
"""Seconds; the start compiles what remains."""
DEVICE = "cuda"
_EPS, _POST, _SINKHORN = 1e-6, 2.0, 20
"""Of every published model, as TileLang's kernels have them built in."""


@dataclass(frozen=True)
class PrebuiltKernels:
    """How many kernels were compiled, and how long it took; `failed` is the message of a process that failed."""

    kernels: int
    seconds: float
    failed: str = ""


def of_plan(
    selection: Selection, plan: Plan, environ: Mapping[str, str], seconds: float = LIMIT
) -> PrebuiltKernels | None:
    """
    Compile what a plan needs into the folder of its kernels; None where no product is known, or it has them.

    It takes `seconds` at most, and never more than LIMIT. Nothing is raised but a signal to stop: what fails is
    compiled by the start.
    """
    try:
        return _of_plan(selection, plan, environ, min(seconds, LIMIT))
    except local_replica.Stopped:
        raise
    except Exception as error:
        log.warning(f"no kernel was compiled beforehand, the start compiles all: {type(error).__name__}: {error}")
        return None


def _of_plan(selection: Selection, plan: Plan, environ: Mapping[str, str], seconds: float) -> PrebuiltKernels | None:
    if selection.hardware.get("compute_capability") != CAPABILITY:
        return None
    folder = kernel_cache.installed_folder(plan, environ)
    if kernel_cache.find(plan, folder).filled:
        return None
    if not (products := products_of(selection, plan)):
        return None
    plan = kernel_cache.placed(plan, environ, folder)
    variables = {**environ, **plan.environment()}
    found = compile_all(products, steps(plan), variables, _processes(), seconds)
    note = f"; one process failed, and the start compiles the rest: {found.failed}" if found.failed else ""
    level = logging.WARNING if found.failed else logging.INFO
    message = f"DeepGEMM and TileLang: {found.kernels} kernels compiled beforehand in {found.seconds:.0f} s{note}"
    log.log(level, message)
    return found


def products_of(selection: Selection, plan: Plan, sizes: Dims | None = None) -> list[Gemm]:
    """
    Return the products of a plan; none without numpy, or where the published sizes are unknown.

    `sizes`, if given, replace those. A layout that is not known counts as DeepSeek's own, which has the most of FP8.
    """
    try:
        from ...demo.v4_layouts import LAYOUTS
        from .without_weights import SIZES
    except ModuleNotFoundError:  # numpy, which comes with vLLM
        return []
    model, drafter = selection.model, selection.drafter
    architecture, scheme = str(model.get("architecture")), str(model.get("scheme"))
    if (sizes := sizes or SIZES.get(architecture)) is None:
        return []
    layout = demo_layout.layout_of(architecture, scheme, drafter.kind, drafter.scheme) or "native"
    return gemms(sizes, LAYOUTS[layout], parallel_of(plan.flags), drafts=plan.draft_tokens > 0)


def steps(plan: Plan) -> list[int]:
    """Return the tokens of the steps that a plan's first prompts and graphs have."""
    return sorted({*sweep.lengths(plan), *plan.value("cudagraph-capture-sizes", ())})


def _processes() -> int:
    """Return how many have a core and memory: what a container's memory limit ends may be the whole container."""
    return max(1, min(PROCESSES, len(os.sched_getaffinity(0)), prefetch.available() // MEMORY))


def compile_all(
    products: Sequence[Gemm], tokens: Sequence[int], environ: Mapping[str, str], processes: int, seconds: float = LIMIT
) -> PrebuiltKernels:
    """
    Compile the kernels for steps of these tokens into vLLM's cache folder, which `environ` names (VLLM_CACHE_ROOT).

    It takes `seconds` at most. A process that fails is named in the result. Raise OSError where none can be
    started.
    """
    began, before = time.monotonic(), _kernels(environ)
    count = max(1, min(PROCESSES, processes))
    work = {"gemms": [asdict(one) for one in products], "tokens": sorted(tokens), "of": count}
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_process({**work, "part": part}, environ)) for part in range(count)]
        failed = [_failure(*one, began, seconds) for one in running]
    kernels = _kernels(environ) - before
    return PrebuiltKernels(kernels, round(time.monotonic() - began, 1), next(filter(None, failed), ""))


@contextlib.contextmanager
def _process(
    work: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Start one part; at the end it is killed with its compilers. Its errors go to a file: nobody reads a pipe."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, json.dumps(work)],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            preexec_fn=procfs.end_with_parent,  # noqa: PLW1509 - one system call, which needs no lock
        )
        with process:
            try:
                yield process, errors
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def _failure(process: subprocess.Popen[bytes], errors: IO[bytes], began: float, seconds: float) -> str:
    try:
        status = process.wait(timeout=max(0.0, began + seconds - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:.0f} s"
    if not status:
        return ""
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().rpartition("\n")[2][:300]
    return last or f"exit status {status}"


def _kernels(environ: Mapping[str, str]) -> int:
    folders = [Path(environ["VLLM_CACHE_ROOT"], "deep_gemm"), Path(environ.get("TILELANG_CACHE_DIR") or "/nonexistent")]
    return sum(1 for folder in folders for _ in folder.rglob("*.cubin"))


def launches(products: Sequence[Gemm], lengths: Mapping[Gemm, Sequence[int]]) -> list[tuple[Gemm, int]]:
    """Return each product with each number of tokens, in an order that is the same everywhere, and mixed: neighbours
    need the same kernel, and two processes would compile it at the same time."""
    found = [(one, tokens) for one in products for tokens in lengths[one]]
    random.Random(0).shuffle(found)  # noqa: S311 - an order, no secret
    return found


def main(work: Mapping[str, Any]) -> None:
    """Launch one process's part; raise the last error when all were tried."""
    import torch

    warmup: Any = importlib.import_module("vllm.model_executor.warmup.deep_gemm_warmup")
    products, tokens = [Gemm(**one) for one in work["gemms"]], work["tokens"]
    hidden = min((one.k for one in products if one.kind == HYPER), default=0)
    device = torch.device(DEVICE, 0)
    lengths = {
        one: sorted({*tokens, *(warmup._generate_optimal_warmup_m_values(tokens[-1], one.n, device))})  # noqa: SLF001
        for one in products
    }
    ready: dict[Gemm, Any] = {}

    def launch(one: Gemm, count: int) -> None:
        if one not in ready:
            ready[one] = _operands(torch, one, tokens[-1], device)
        _launch(one, count, *ready[one])
        torch.cuda.synchronize()

    failed: Exception | None = None
    try:
        sums = _sums(hidden, tokens[-1])
    except Exception as error:  # the products are worth trying
        sums, failed = [], error
    tasks: list[Callable[[], None]] = [*sums, *(partial(launch, *each) for each in launches(products, lengths))]
    for task in tasks[work["part"] :: work["of"]]:
        try:
            task()
        except Exception as error:  # the others are worth trying
            failed = error
    if failed:
        raise failed


def _sums(hidden: int, tokens: int) -> list[Callable[[], None]]:
    """Return the builds of TileLang's sums over splits, which are the longest; none without hyper connections."""
    if not hidden:
        return []
    kernels: Any = importlib.import_module("vllm.model_executor.kernels.mhc.tilelang_kernels")
    built = kernels._MHC_PRE_BIG_FUSE_TILELANG_KERNEL  # noqa: SLF001
    settings = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_batched_tokens=tokens))
    epsilons = dict.fromkeys(("rms_eps", "hc_pre_eps", "hc_sinkhorn_eps", "norm_eps", "broadcast_norm_eps"), _EPS)
    splits = dict.fromkeys(("use_norm_weight", "include_pre_gemm_splits", "include_broadcast_splits"), True)
    post = {"hc_post_mult_value": _POST, "sinkhorn_repeat": _SINKHORN}
    keys = built.get_warmup_keys(settings, hidden_size=hidden, hc_mult=HC, **epsilons, **splits, **post)
    return [partial(built.compile, key) for key in keys]


def _operands(torch: Any, one: Gemm, tokens: int, device: Any) -> tuple[Any, ...]:
    """Return the operands and the result, as vLLM has them on SM 9.0."""
    fp8 = {"dtype": torch.float8_e4m3fn, "device": device}
    plain = {"dtype": torch.float32, "device": device}
    if one.kind == HYPER:
        return torch.zeros(tokens, one.k, dtype=torch.bfloat16, device=device), torch.zeros(one.n, one.k, **plain)
    scales = (one.n // BLOCK, one.k // BLOCK)
    if one.kind == LINEAR:
        inputs = torch.empty(tokens, one.k, **fp8), torch.zeros(tokens, one.k // BLOCK, **plain)
        weight = torch.empty(one.n, one.k, **fp8), torch.zeros(scales, **plain)
        return *inputs, weight, torch.empty(tokens, one.n, dtype=torch.bfloat16, device=device)
    weight = torch.empty(one.groups, one.n, one.k, **fp8), torch.zeros(one.groups, *scales, **plain)
    inputs = (
        torch.empty(one.groups * tokens * one.k, **fp8),
        torch.zeros(one.groups * (tokens + 3) * one.k // BLOCK, **plain),
    )
    return *inputs, weight, torch.empty(tokens, one.groups, one.n, dtype=torch.bfloat16, device=device)


def _launch(one: Gemm, count: int, *operands: Any) -> None:
    deep_gemm: Any = importlib.import_module("vllm.utils.deep_gemm")
    if one.kind == HYPER:
        tilelang: Any = importlib.import_module("vllm.model_executor.kernels.mhc.tilelang")
        inputs, mixes = operands
        tilelang._hc_prenorm_gemm_outputs(inputs[:count], mixes, hidden_size=one.k // HC, hc_mult=HC)  # noqa: SLF001
        return
    inputs, scale, weight, result = operands
    if one.kind == LINEAR:
        deep_gemm.fp8_gemm_nt((inputs[:count], scale[:count]), weight, result[:count])
        return
    # Group by group, and scales by column, each aligned to 4 tokens: as vLLM's quantization kernel writes both.
    aligned, blocks = -(-count // 4) * 4, one.k // BLOCK
    values = inputs[: one.groups * count * one.k].view(one.groups, count, one.k).transpose(0, 1)
    columns = scale[: one.groups * blocks * aligned].view(one.groups, blocks, aligned).permute(2, 0, 1)[:count]
    deep_gemm.fp8_einsum("bhr,hdr->bhd", (values, columns), weight, result[:count], recipe=(1, BLOCK, BLOCK))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
