"""Which products DeepGEMM computes, held against the kernels that H200 hosts had; vLLM's modules: tests/patches."""

from __future__ import annotations

import pytest

from dsv4_serve.demo.v4_layouts import LAYOUTS
from dsv4_serve.entrypoint.bench.kernel_products import gemms
from dsv4_serve.entrypoint.bench.without_weights import SIZES
from dsv4_serve.entrypoint.parallel import Parallel

FLASH, PRO = SIZES["deepseek-v4-flash"], SIZES["deepseek-v4-pro"]
ATTENTION = {("linear", 1536, 4096, 1), ("linear", 16384, 1024, 1), ("linear", 4096, 4096, 1)} | {
    ("grouped", 1024, 4096, 4)
}
HYPER = {("hyper connections", 24, 16384, 1), ("hyper connections", 24, 4096, 1)}
INDEXER, SHARED = {("linear", 8192, 1024, 1)}, {("linear", 2048, 4096, 1), ("linear", 4096, 1024, 1)}
DSPARK = {("linear", 4096, 12288, 1)}


@pytest.mark.parametrize(
    ("layout", "drafts", "others"),
    [
        ("w4a16", True, set()),
        ("nvfp4", True, set()),
        ("acti", True, INDEXER),
        ("native", True, INDEXER | SHARED),
        ("flash-nvfp4", True, INDEXER | SHARED),
        ("flash-0731", True, INDEXER | SHARED | DSPARK),
        ("flash-0731-nvfp4", True, INDEXER | SHARED | DSPARK),
        ("flash-0731", False, INDEXER | SHARED),
    ],
)
def test_flash_on_two_gpus(layout: str, drafts: bool, others: set[tuple[str, int, int, int]]) -> None:
    found = [(one.kind, one.n, one.k, one.groups) for one in gemms(FLASH, LAYOUTS[layout], Parallel(2), drafts=drafts)]
    assert len(found) == len(set(found))
    assert set(found) == ATTENTION | HYPER | others


def test_what_is_not_fp8_has_only_hyper_connections() -> None:
    assert {one.kind for one in gemms(FLASH, LAYOUTS["bf16"], Parallel(2))} == {"hyper connections"}


@pytest.mark.parametrize(("ways", "width"), [(8, 384), (16, 256)])
def test_shared_experts_are_split_in_whole_blocks(ways: int, width: int) -> None:
    found = {(one.n, one.k) for one in gemms(PRO, LAYOUTS["pro"], Parallel(ways))}
    assert {(2 * width, 7168), (7168, width)} < found


@pytest.mark.parametrize(
    ("parallel", "width"),
    [
        (Parallel(2, expert=True), 1024),
        (Parallel(2, data=2), 1024),
        (Parallel(2, data=2, expert=True), 2048),
        (Parallel(2, pipeline=2, data=2, expert=True), 1024),
    ],
)
def test_shared_experts_are_whole_where_replicas_share_experts(parallel: Parallel, width: int) -> None:
    found = {(one.n, one.k) for one in gemms(FLASH, LAYOUTS["native"], parallel)}
    assert {(2 * width, 4096), (4096, width)} < found
