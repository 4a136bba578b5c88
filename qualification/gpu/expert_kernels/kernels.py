"""
Humming's kernels of given schedules: what it calls legal, and compiled by NVRTC, with or without a GPU.

Humming keys a kernel by the paths and the times of its headers as well, so one that another machine compiled is not found.
Here they are kept by what decides the code alone: source, flags, compiler's version and the text of Humming's headers.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import shutil
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from qualification.gpu.expert_kernels import schedules
from qualification.gpu.expert_kernels.layers import EXPERTS, GROUPS, TOKEN, TOP_K, Layer
from qualification.gpu.expert_kernels.schedules import Schedule

H200 = {
    "index": 0, "name": "NVIDIA H200", "is_ppu": False, "sm_count": 132, "max_threads_per_block": 1024,
    "max_threads_per_sm": 2048, "max_registers_per_sm": 65536, "sm_major": 9, "sm_minor": 0, "sm_version": 90,
    "l2_cache_size": 50 << 20, "l2_cache_size_mb": 50.0, "max_smem_size": 227 * 1024, "max_smem_size_kb": 227,
    "default_smem_size": 48 * 1024, "memory_bandwidth_gbps": 4800.0, "sm_clock_khz": 1980000,
    "tensorcore_tops": {"float16": 989.0, "bfloat16": 989.0, "float8e4m3": 1979.0, "float8e5m2": 1979.0, "int8": 1979.0},
}  # fmt: skip
"""What Humming asks a GPU about itself."""
COMPUTE = {"use_batch_invariant": False, "use_f16_accum": False, "gemm_type": "indexed"}
"""As vLLM serves experts that are split over the GPUs."""
ACTIVATIONS: dict[str, dict[str, Any]] = {
    GROUPS: {"dtype": "float8e4m3", "group_size": 128},
    TOKEN: {"dtype": "float8e4m3"},
    "mxfp4": {},
    "int4": {},
}


def humming(part: str) -> Any:
    """Return a module of Humming, which is not there where vLLM is for CPUs."""
    return importlib.import_module(f"humming.{part}")


@contextmanager
def without_gpu() -> Iterator[None]:
    """Let Humming take this machine for one with an H200, unless it has a GPU: to choose and to compile, not to run."""
    if torch.cuda.is_available():
        yield
        return
    os.environ |= {"HUMMING_COMPILER": "nvrtc", "HUMMING_DISABLE_PARALLEL_BUILD": "1"}
    for name in ("cuda", "cuda.bindings", "cuda.bindings.driver", "cuda.bindings.nvrtc"):
        sys.modules.setdefault(name, mock.MagicMock())  # to be imported; nothing of them is called
    patches = [
        mock.patch.object(torch.version, "cuda", torch.version.cuda or "13.0"),
        mock.patch.object(torch.cuda, "current_device", return_value=0),
        mock.patch.object(torch.cuda, "device", mock.MagicMock()),
    ]
    for one in patches:
        one.start()
    try:
        said = types.SimpleNamespace(_DeviceInfo=lambda _: types.SimpleNamespace(**H200))
        more = [
            mock.patch.object(humming("device"), "_get_device_info_extension", return_value=said),
            mock.patch.object(humming("kernel.humming").HummingKernel, "register_kernel", _nothing),
        ]
        for one in more:
            one.start()
            patches.append(one)
        nvrtc = Path(humming("utils.nvrtc").get_nvrtc_library_path())  # its other half lies beside it
        with mock.patch.dict(os.environ, LD_LIBRARY_PATH=str(nvrtc.parent)):
            yield
    finally:
        for one in reversed(patches):
            one.stop()


def schemas(form: str) -> tuple[Any, Any]:
    """Return Humming's descriptions of a format's weights and activations."""
    schema, dtypes = humming("schema"), humming("dtypes")
    if form == "int4":
        four = dtypes.DataType.from_str("uint4")
        weights = schema.HummingWeightSchema(b_dtype=four, bs_dtype=dtypes.bfloat16, weight_scale_group_size=128)
    else:
        weights = schema.BaseWeightSchema.from_config({"quant_method": "mxfp4"}).to_humming_schema(torch.bfloat16)
    return weights, schema.HummingInputSchema.from_config(ACTIVATIONS[form])


@functools.cache
def config(layer: Layer) -> Any:
    """Return Humming's description of a layer, as vLLM makes it."""
    weights, inputs = schemas(layer.format)
    return humming("transform").prepare_layer_config(
        *layer.shape, weights, inputs, num_experts=EXPERTS, pad_n_to_multiple=256, pad_k_to_multiple=128,
        torch_dtype=torch.bfloat16,
    )  # fmt: skip


def heuristic(layer: Layer) -> list[tuple[int, int, Schedule]]:
    """Return what Humming chooses by itself: schedules for more than so many rows, and up to so many."""
    found = humming("tune").get_heuristics_config(config(layer), gemm_type="indexed")
    return [(low, high, dict(one)) for low, high, one in found]


def chosen(ranges: Iterable[tuple[int, int, Schedule]], rows: int) -> Schedule:
    """Return the schedule for a number of rows."""
    return next(one for low, high, one in ranges if low < rows <= high)


def parameters(layer: Layer, schedule: Schedule) -> dict[str, Any]:
    """Return what Humming's kernel is made with."""
    described = json.loads(config(layer).to_str()) | COMPUTE | json.loads(json.dumps(schedule))
    described.pop("num_sms", None)
    return described


def shared_memory(layer: Layer, schedule: Schedule) -> int | None:
    """Return the shared memory of a block, or None where Humming refuses the schedule or a processor has no room."""
    tune, kernel = humming("tune.candidate"), humming("kernel.humming").HummingKernel
    problem = tune.TuningProblem(
        layer_config=config(layer),
        shape_m=32 * TOP_K,
        gemm_type=humming("config").GemmType.INDEXED,
        device=humming("tune.sm90").Sm90Heuristics.get_device_profile(include_grid_size=True),
    )
    shape = {key: value for key, value in schedule.items() if key not in schedules.INDEXED}
    found = tune.analyze_candidate(problem, tune.ScheduleCandidate.from_config("tried", shape))
    if not found.legal or not schedules.fits(schedule, found.smem_size):
        return None
    with mock.patch.multiple(kernel, prepare=_nothing, register_kernel=_nothing):
        try:
            return int(kernel(**parameters(layer, schedule)).estimated_smem_size)
        except (AssertionError, ValueError):
            return None
        finally:
            kernel._instances.clear()


def _nothing(_: object) -> None:
    """Stand in for what needs a GPU or a compiler."""


def candidates(layer: Layer) -> list[Schedule]:
    """Return the schedules to try for a layer: legal ones with as many stages as fit, at most ROWS of each kind."""
    return schedules.thinned(legal(layer, for_decoding(layer)))


def candidates_for_prompts(layer: Layer) -> list[Schedule]:
    """Return the schedules to try for steps of prompts, at most PROMPT_ROWS of each kind."""
    proposed = schedules.proposed_for_prompts(layer.fp8, layer.groups)
    return schedules.thinned(legal(layer, proposed), schedules.PROMPT_ROWS, schedules.prompt_rank)


def for_decoding(layer: Layer) -> Iterator[Schedule]:
    """Yield the schedules of decode steps to ask Humming about."""
    for proposal in schedules.proposed(schedules.loading(layer.fp8, layer.groups)):
        one = dict(proposal)
        if one["warp_shape"][2] == 32 and one["mma_type"] == "wgmma":
            continue  # half as many weights for each turn of the loop
        if layer.groups and one["use_warp_spec"] is False and one.get("wgmma_split_issue_wait"):
            one["wgmma_use_late_as"] = True
        if schedules.worthwhile(one):
            yield one


def legal(layer: Layer, proposed: Iterable[Schedule]) -> list[Schedule]:
    """Return what Humming calls legal, of proposals that differ in their stages alone the deepest, which come first."""
    found: list[Schedule] = []
    done: set[tuple[Any, ...]] = set()
    for one in proposed:
        key = (*schedules.family(one), one["num_ctas_per_sm"])
        if key not in done and shared_memory(layer, one) is not None:
            done.add(key)
            found.append(one)
    return schedules.deepest(found)


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Let Humming take kernels from a folder, and put those there that it compiles."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = humming("jit.compiler").NVRTCCompiler
    original = compiler.compile

    def compile_once(code: str, sm_version: str, kernel_expr: str | None, **options: Any) -> str:
        flags = compiler.get_flags(sm_version, options.get("disable_fast_math", False))
        file = folder / f"{key(code, kernel_expr, flags)}.cubin"
        if not file.exists():
            made = original(code, sm_version=sm_version, kernel_expr=kernel_expr, **options)
            partial = file.with_suffix(f".{os.getpid()}-{hashlib.md5(str(made).encode()).hexdigest()}")
            shutil.copyfile(made, partial)
            partial.replace(file)
        return file.as_posix()

    with mock.patch.object(compiler, "compile", compile_once):
        yield


def key(code: str, expression: str | None, flags: Iterable[str]) -> str:
    """Return a name for a kernel that is the same on every machine."""
    own = [flag for flag in flags if not flag.startswith("-I")]
    return digest([humming("jit.compiler").NVRTCCompiler.signature(), headers(), own, expression, code])


@functools.cache
def headers() -> str:
    """Return a digest of the text of Humming's headers."""
    root = Path(humming("jit.compiler").Compiler.humming_include_dir())
    return digest({str(file.relative_to(root)): file.read_text() for file in sorted(root.rglob("*.cuh"))})


def digest(value: object) -> str:
    """Return the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def compiled(layer: Layer, wanted: Iterable[Schedule], workers: int) -> Mapping[str, Path | str]:
    """Compile schedules side by side; return the file of each by name, or why there is none."""
    kernel = humming("kernel.humming").HummingKernel

    def one(schedule: Schedule) -> Path | str:
        try:
            return Path(kernel(**parameters(layer, schedule)).kernel_filename)
        except (AssertionError, ValueError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"[:300]

    every = {schedules.name(schedule): schedule for schedule in wanted}
    with mock.patch.object(kernel, "register_kernel", _nothing), ThreadPoolExecutor(workers) as pool:
        found = dict(zip(every, pool.map(one, every.values()), strict=True))
    kernel._instances.clear()  # they are not loaded
    return found
