"""A trace by kernel family: sums, shares, and the time in which nothing ran."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tools import kernel_time


def event(name: str, start: float, length: float, cat: str = "kernel") -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": length, "tid": 7}


TRACE = {
    "traceEvents": [
        event("humming_wna16_moe_gemm", 0, 400),
        event("ncclDevKernel_AllReduce_Sum_bf16", 300, 300),  # 100 of them beside the experts
        event("humming_wna16_moe_gemm", 800, 200),
        event("aten::mm", 0, 5000, cat="cpu_op"),
        {"ph": "M", "name": "process_name"},
    ]
}


def test_kernels_are_summed_by_family_and_the_largest_comes_first() -> None:
    found = kernel_time.by_family(TRACE)
    assert [(one.name, one.count, one.ms) for one in found] == [
        ("experts", 2, 0.6), ("all-reduce", 1, 0.3), ("idle", 0, 0.2), ("span", 3, 1.0),
    ]  # fmt: skip
    assert found[0].share == 0.6
    assert found[0].longest == "100% 2 x humming_wna16_moe_gemm"
    assert found[0].kernels == ("0.600 ms 2 x humming_wna16_moe_gemm",)


def test_a_family_names_its_longest_kernels_in_order() -> None:
    each = [event(f"moe_{number}", 10 * number, number) for number in range(1, 12)]
    [experts, *_] = kernel_time.by_family({"traceEvents": each})
    assert experts.kernels == tuple(f"{number / 1000:.3f} ms 1 x moe_{number}" for number in range(11, 3, -1))
    assert "0.004 ms 1 x moe_4" in kernel_time.table([experts])


def test_time_in_which_two_kernels_run_is_not_idle_twice() -> None:
    assert kernel_time.covered([(0, 10), (5, 8), (9, 12), (20, 21)]) == 13


def test_a_trace_without_a_gpu_has_no_families() -> None:
    assert kernel_time.by_family({"traceEvents": [event("aten::mm", 0, 1, cat="cpu_op")]}) == []


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        ("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>", "all-reduce"),
        ("flash_mla_sparse_fwd_kernel", "attention"),
        ("deep_gemm::sm90_fp8_gemm_1d2d_impl", "FP8 GEMM"),
        ("void deep_gemm::fp8_gemm_kernel_swapAB<4096u, 1024u, 64u>", "FP8 GEMM"),
        ("_compute_swa_indices_and_lens_kernel", "attention"),
        ("nvjet_tst_128x64_bf16", "other GEMM"),
        (
            "_ZN7cutlass13device_kernelINS_4gemm6kernel29SingleWarpgroupPersistentGemmINS1_17GroupProblemShapeIN4cute",
            "experts",
        ),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("mystery", "other"),
    ],
)
def test_kernels_belong_to_families_by_name(kernel: str, family: str) -> None:
    assert kernel_time.family(kernel) == family


def test_a_packed_trace_is_read(tmp_path: Path) -> None:
    packed, plain = tmp_path / "a.json.gz", tmp_path / "a.json"
    packed.write_bytes(gzip.compress(json.dumps(TRACE).encode()))
    plain.write_text(json.dumps(TRACE))
    assert kernel_time.read(packed) == kernel_time.read(plain) == TRACE
    assert "100% 2 x humming" in kernel_time.table(kernel_time.by_family(kernel_time.read(packed)))
