"""How many conversations host memory keeps: for any sizes, so many and not one more."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.memory import advice
from dsv4_serve.entrypoint.memory.cache_layout import CACHE_LAYOUTS
from dsv4_serve.entrypoint.memory.host_cache import HostCache
from tests.entrypoint.memory.test_settings import memory_of

GIB = 1 << 30
LAYOUTS = st.sampled_from(sorted(CACHE_LAYOUTS.values(), key=repr))


@given(
    LAYOUTS,
    st.integers(0, 3),
    st.floats(0.01, 4096),
    st.integers(1, 16),
    st.integers(1, 1_048_576),
)
def test_so_many_conversations_fit_and_not_one_more(layout, drafter, gib, copies, tokens) -> None:
    of_rank = dataclasses.replace(layout, drafter=drafter)
    cache = HostCache(gib, of_rank.block_bytes, of_rank.window_blocks, copies)
    held, each = cache.conversations(tokens), cache.bytes_of(tokens)
    room = int(gib * GIB) // cache.row_bytes * cache.row_bytes
    assert held * each <= room < (held + 1) * each
    assert cache.row_bytes % 4096 == 0
    assert of_rank.block_bytes * copies <= cache.row_bytes < of_rank.block_bytes * copies + 4096
    if longest := cache.longest():
        assert cache.conversations(longest) == 1
        assert cache.bytes_of(longest + 256) > room


@given(LAYOUTS, st.floats(0.5, 4096), st.integers(1, 8), st.integers(256, 1_048_576))
def test_ranks_with_copies_of_their_own_never_keep_more(layout, gib, copies, tokens) -> None:
    shared, own = (HostCache(gib, layout.block_bytes, layout.window_blocks, count) for count in (1, copies))
    assert own.conversations(tokens) <= shared.conversations(tokens)


def test_a_token_of_flash_takes_3920_bytes_and_a_prompts_end_23_blocks() -> None:
    cache = memory_of("524k", "w4a16", "h200", kv_offloading_size=64.0).host_cache
    assert cache
    assert (cache.bytes_per_token, cache.window_blocks, cache.blocks) == (3920, 23, 68_478)
    assert memory_of("524k", "w4a16", "h200").host_cache is None


@pytest.mark.parametrize(
    ("flags", "copies", "more"),
    [
        ({"tensor_parallel_size": 2}, 1, 64),
        ({"tensor_parallel_size": 1, "data_parallel_size": 2}, 1, 128),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, 4, 64),
        ({"tensor_parallel_size": 2, "distributed_executor_backend": "ray"}, 2, 64),
        ({"tensor_parallel_size": 2, "data_parallel_size": 2, "data_parallel_backend": "ray"}, 2, 128),
        ({"tensor_parallel_size": 2, "data_parallel_backend": "ray"}, 1, 64),
        ({"tensor_parallel_size": 4, "nnodes": 2}, 4, 64),
        ({"tensor_parallel_size": 2, "data_parallel_size": 4, "data_parallel_size_local": 3}, 1, 192),
        ({"tensor_parallel_size": 2, "data_parallel_size": 2, "data_parallel_size_local": 0}, 1, 0),
    ],
)
def test_ranks_of_one_host_share_a_copy_and_no_others(flags: dict[str, object], copies: int, more: int) -> None:
    memory = memory_of("64k", "w4a16", "h200", kv_offloading_size=64.0, **flags)
    assert memory.host_cache
    assert memory.host_cache.copies == copies
    host = advice.fit(memory).host
    assert host
    assert (host.memory_gib, host.shm_gib) == (more, 16 + more)


def test_chunks_of_several_blocks_are_not_counted() -> None:
    for size, count in ((1, 0), (4, 1)):
        extra = {"kv-transfer-config.kv_connector_extra_config": {"blocks_per_chunk": size}}
        answer = advice.fit(memory_of("64k", "w4a16", "h200", kv_offloading_size=64.0, **extra))
        assert len([what for what in answer.not_counted if "blocks_per_chunk" in what]) == count


def test_fit_says_what_host_memory_keeps_and_what_the_container_needs() -> None:
    memory = memory_of("524k", "w4a16", "h200", kv_offloading_size=64.0)
    answer = advice.fit(memory)
    assert not answer.not_counted
    text = advice.text(memory, answer)
    assert "68,478 blocks: 33 conversations of 524,288 tokens" in text
    assert "64 GiB more memory than without, and --shm-size=80g" in text
    alone = memory_of(
        "524k", "w4a16", "h200", kv_offloading_size=64.0, data_parallel_size=2, data_parallel_size_local=0
    )
    text = advice.text(alone, advice.fit(alone))
    assert "this one has no replica (--data-parallel-size-local 0)" in text
    assert "--shm-size" not in text
    assert answer.to_json()["host"]["conversations"] == 33
    none = memory_of("524k", "w4a16", "h200", kv_offloading_size=0.0001)
    text = advice.text(none, advice.fit(none))
    assert "No conversation comes back from host memory: a prompt's end alone takes 23 MB. Raise" in text
    assert "--shm-size" not in text
    little = memory_of("524k", "w4a16", "h200", kv_offloading_size=1.0)
    longest = (1069 - 23) * 256
    assert f"no history of 524,288 tokens, the longest has {longest:,}" in advice.text(little, advice.fit(little))


@pytest.mark.parametrize(
    ("flags", "gib", "says"),
    [
        ({"kv_offloading_size": 8.0, "kv_offloading_backend": "lmcache"}, 0.0, "buffers of KV offloading"),
        (
            {
                "kv-transfer-config.kv_connector": "OffloadingConnector",
                "kv-transfer-config.kv_role": "kv_both",
                "kv-transfer-config.kv_connector_extra_config": {"cpu_bytes_to_use": 8 * GIB},
            },
            8.0,
            "",
        ),
        (
            {"kv-transfer-config.kv_connector": "NixlConnector", "kv-transfer-config.kv_role": "kv_both"},
            0.0,
            "KV connector",
        ),
    ],
)
def test_another_connector_is_not_counted_and_said_to_be_left_out(flags, gib: float, says: str) -> None:
    memory = memory_of("64k", "flash", "h200", **flags)
    assert memory.offloading_gib == gib
    assert any(says in what for what in memory.not_counted) if says else not memory.not_counted
