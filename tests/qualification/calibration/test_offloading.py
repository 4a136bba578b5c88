"""What host memory keeps by entrypoint/memory/host_cache.py, against what vLLM's own scheduler stored and took back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.memory.cache_layout import CACHE_LAYOUTS
from dsv4_serve.entrypoint.memory.host_cache import HostCache
from tests.qualification.calibration.test_planner import SETTINGS, label, needs_vllm, of_vllm, ours

HERE = Path(__file__).parent
RESULTS = HERE.parents[2] / "qualification/results/bench"
FLASH = dataclasses.replace(CACHE_LAYOUTS["deepseek-v4-flash"], drafter=1)
RECORDED = json.loads((HERE / "offloaded.json").read_text())
ASKED = (*SETTINGS, "gib", "prompt", "output", "extra")
BLOCK, DRAFTS_BLOCK = 256, 64


def name(answer) -> str:
    return f"{label(answer)}-{answer['prompt']}-{answer['output']}{'-answers' * ('extra' in answer)}"


def cache_of(answer) -> HostCache:
    layout = ours(answer).layout
    assert layout
    return HostCache(answer["gib"], layout.block_bytes, layout.window_blocks)


def cut_short(answer) -> bool:
    """In vLLM without our patches drafts need the 64 tokens after the last block of 256; a prompt may end within them."""
    tokens = answer["prompt"] + (answer["output"] if "extra" in answer else 0)
    return answer["mtp"] and tokens - (answer["prompt"] - 1) // BLOCK * BLOCK < DRAFTS_BLOCK


@pytest.mark.parametrize("answer", RECORDED, ids=name)
def test_host_memory_keeps_as_many_blocks_as_vllm_allots(answer) -> None:
    assert cache_of(answer).blocks == answer["host_blocks"]


@pytest.mark.parametrize("answer", RECORDED, ids=name)
def test_a_turn_takes_as_many_blocks_as_vllm_stores(answer) -> None:
    """With the answers' blocks, the count is at most one block short: that of the answer."""
    counted = cache_of(answer).blocks_of(answer["prompt"]) - cut_short(answer)
    assert 0 <= answer["stored"] - counted <= ("extra" in answer)


@pytest.mark.parametrize("answer", RECORDED, ids=name)
def test_a_turn_comes_back_up_to_its_last_block_unless_drafts_lack_theirs(answer) -> None:
    whole = (answer["prompt"] - 1) // BLOCK * BLOCK
    assert answer["restored"] == (0 if cut_short(answer) else whole)


def test_the_recorded_settings_have_every_kind() -> None:
    assert {cut_short(answer) for answer in RECORDED} == {True, False}
    assert {answer["tp"] for answer in RECORDED} == {1, 2, 4}
    assert {"drafter", "draft_tokens", "indexer", "extra"} <= {key for answer in RECORDED for key in answer}


def test_a_gpu_copies_as_many_bytes_as_are_counted() -> None:
    """Conversations that were read anew on H200 (qualification/gpu/returning.py): vLLM's own counter of stored bytes."""
    found = [json.loads(file.read_text()) for file in RESULTS.glob("w4a16-*-returning-*.json")]
    lengths = {
        (of["tokens"], turn["stored"])
        for one in found
        for of in one["returning"]
        for turn in of["turns"]
        if turn["turn"] == "read"
    }
    assert lengths
    for tokens, stored in lengths:
        assert stored == FLASH.block_bytes * HostCache(1, FLASH.block_bytes, FLASH.window_blocks).blocks_of(tokens)


@pytest.mark.slow
@needs_vllm
def test_vllms_scheduler_still_stores_and_restores_what_is_recorded() -> None:
    settings = [{key: answer[key] for key in ASKED if key in answer} for answer in RECORDED]
    assert of_vllm("offloading", stdin=json.dumps(settings)) == RECORDED


@pytest.mark.slow
@needs_vllm
def test_files_of_a_disk_come_back_after_a_restart(tmp_path) -> None:
    """vLLM's scheduler and its tier of files, in two processes; the GPU's part of the copies is left out."""
    tiers = [{"type": "fs", "root_dir": str(tmp_path / "kv")}]
    extra = {"spec_name": "TieringOffloadingSpec", "secondary_tiers": tiers}
    asked = {key: RECORDED[0][key] for key in ASKED if key in RECORDED[0]} | {"gib": 0.25, "extra": extra}
    first, again = (of_vllm("offloading", stdin=json.dumps([asked]))[0] for _ in range(2))
    whole = (asked["prompt"] - 1) // BLOCK * BLOCK
    assert (first["before"], again["before"]) == (0, whole)
    assert first["restored"] == whole < again["restored"]  # the second turn of the first process is there too
    files = list((tmp_path / "kv").rglob("*.bin"))
    assert {file.stat().st_size for file in files} == {cache_of(asked).row_bytes}
    assert len(files) >= first["stored"]
    assert not list(Path("/dev/shm").glob("vllm_offload_*"))
