"""docs/how-to/kv-offloading.md: what is computed there is what entrypoint/memory/host_cache.py computes."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.memory.cache_layout import CACHE_LAYOUTS
from dsv4_serve.entrypoint.memory.host_cache import HostCache

PAGE = (Path(__file__).parents[2] / "docs/how-to/kv-offloading.md").read_text(encoding="utf-8")
FLASH = dataclasses.replace(CACHE_LAYOUTS["deepseek-v4-flash"], drafter=1)
LENGTHS = (16_384, 131_072, 524_288)
GIB = 1 << 30
ROOM = {
    "64 GiB of host memory": 64,
    "256 GiB of host memory": 256,
    "1 TB of NVMe": 1e12 / GIB,
    "3.84 TB of NVMe": 3.84e12 / GIB,
}


def cache(gib: float) -> HostCache:
    return HostCache(gib, FLASH.block_bytes, FLASH.window_blocks)


@pytest.mark.parametrize("room", ROOM)
def test_a_row_of_the_table_of_rooms(room: str) -> None:
    held = cache(ROOM[room])
    cells = [room, f"{held.blocks:,}", *(f"{held.conversations(tokens):,}" for tokens in LENGTHS)]
    millions = held.conversations(131_072) * 131_072 / 1e6
    assert f"| {' | '.join(cells)} | {millions:.1f} million |" in PAGE


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_row_of_the_table_of_times(tokens: int) -> None:
    size = cache(1).bytes_of(tokens)

    def time(rate: float, digits: int) -> str:
        return f"{size / rate / 1e6:.{digits}f}"

    digits = 1 if tokens == LENGTHS[0] else 0
    row = (
        f"| {tokens:,} tokens | {size / 1e6:,.0f} MB | {time(25, digits)}; {time(50, digits)} ms"
        f" | {time(3.5, 0)}; {time(7, 0)} ms |"
    )
    assert row in PAGE


def test_a_token_and_a_turn() -> None:
    held = cache(1)
    assert f"{held.bytes_per_token:,.0f} bytes for each new token" in PAGE
    assert PAGE.count(f"{held.window_blocks * held.row_bytes / 1e6:.0f} MB") == 2


def test_vllm_has_every_metric_of_the_page() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    files = [root / "v1/metrics/loggers.py", *root.glob("distributed/**/offloading/metrics.py")]
    files += [root / "v1/kv_offload/cpu/common.py", root / "v1/kv_offload/tiering/base.py"]
    known = set(re.findall(r'"(vllm:\w+)"', "".join(file.read_text() for file in files)))
    names = {name.removesuffix("_total") for name in re.findall(r"`(vllm:\w+)`", PAGE)}
    assert len(names) > 10
    assert names <= known
