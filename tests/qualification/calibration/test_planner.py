"""Blocks, tokens and concurrency by entrypoint/memory, against what vLLM's own planner answers for the same free memory."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.memory.cache_layout import FP8_KEY, MXFP4_KEY
from dsv4_serve.entrypoint.memory.estimate import CACHE_LAYOUTS, GIB, CacheLayout, MemoryEstimate, weights_gib
from tests.support.program import environment

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "planned.json").read_text())
SETTINGS = (
    "trunk", "mtp", "async", "context", "batched_tokens", "tp", "available_bytes", "drafter", "draft_tokens", "indexer",
)  # fmt: skip
STRUCTURE = ("trunk", "mtp", "async", "drafter", "draft_tokens", "indexer")
FIVE_LAYERS = CacheLayout(2, 1, window_groups=3)
ALLOWED = 0.02

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed beside this interpreter")


def label(answer):
    mtp, scheduling = ("mtp" if answer["mtp"] else "no-mtp"), ("async" if answer["async"] else "sync")
    other = "".join(f"-{answer[key]}" for key in ("drafter", "draft_tokens", "indexer") if key in answer)
    name = f"{answer['trunk']}-{mtp}-{scheduling}-{answer['context']}-{answer['batched_tokens']}-tp{answer['tp']}"
    return name + other


def ours(answer) -> MemoryEstimate:
    """The same setting for entrypoint/memory; the free memory is given, so the weights do not matter."""
    layouts = CACHE_LAYOUTS | {"five-layers": FIVE_LAYERS}
    layout = layouts.get(answer["trunk"]) or layouts[f"deepseek-v4-{answer['trunk']}"]
    drafter = 3 if "drafter" in answer else int(answer["mtp"])
    key = MXFP4_KEY if "indexer" in answer else FP8_KEY
    return MemoryEstimate(
        memory_gib=1.0,
        utilization=1.0,
        checkpoint_gib=1.0,
        replicated_gib=0.0,
        tensor_parallel_size=answer["tp"],
        layout=dataclasses.replace(layout, drafter=drafter, key=key),
        context=answer["context"],
        batched_tokens=answer["batched_tokens"],
        requests=1,
        draft_tokens=answer.get("draft_tokens", int(answer["mtp"])),
        asynchronous=answer["async"],
        kv_cache_memory_gib=answer["available_bytes"] / GIB,
    )


def off(found: float, expected: float) -> float:
    return abs(found - expected) / expected


@pytest.mark.parametrize("answer", RECORDED, ids=label)
def test_fit_answers_as_vllms_planner_did(answer):
    memory = ours(answer)
    assert memory.admits == ("refused" not in answer)
    assert memory.blocks_per_request == answer["blocks_per_request"]
    assert (memory.layout or FIVE_LAYERS).block_bytes == answer["block_bytes"]
    if "refused" not in answer:
        assert memory.blocks == answer["blocks"]
        assert int(memory.concurrency * memory.context) == answer["tokens"]


def test_the_table_of_errors():
    """Printed with `pytest -s`: every setting, both answers, and how far they are apart."""
    rows = [(label(a), ours(a).concurrency, a["concurrency"]) for a in RECORDED if "refused" not in a]
    for name, found, expected in rows:
        print(f"{name:<44} ours {found:8.3f}  planner {expected:8.3f}  error {100 * off(found, expected):.3f} %")
    assert len(rows) >= 12
    assert max(off(found, expected) for _, found, expected in rows) <= ALLOWED


def test_both_models_mtp_and_scheduling_are_among_the_settings():
    seen = {(a["trunk"], a["mtp"], a["async"]) for a in RECORDED}
    assert seen >= {(t, m, s) for t in ("flash", "pro") for m, s in ((True, True), (True, False), (False, False))}


@pytest.mark.parametrize(
    ("setting", "tokens", "concurrency"),
    [
        # W4A16 at full size, dummy weights, TP=2, utilization 0.80: 30.17 GiB available
        ({"context": 4096, "batched_tokens": 4096, "available_bytes": int(30.17 * GIB)}, 78_607, 19.19),
        # five layers of every layout, TP=1 and TP=2: 2 GiB by --kv-cache-memory-bytes
        (
            {"trunk": "five-layers", "context": 4096, "batched_tokens": 1024, "available_bytes": 2 * GIB},
            103_062,
            25.16,
        ),
    ],
)
def test_fit_answers_as_vllm_printed_on_h200(setting, tokens, concurrency):
    """`GPU KV cache size` and `Maximum concurrency` of 2 x H200, vLLM 0.32.0, 2026-11-22; asynchronous, one draft token."""
    memory = ours({"trunk": "flash", "mtp": True, "async": True, "tp": 2} | setting)
    assert memory.concurrency * memory.context == pytest.approx(tokens, rel=ALLOWED)
    assert memory.concurrency == pytest.approx(concurrency, rel=ALLOWED)


def test_the_least_memory_that_vllm_admits_is_the_least_that_we_admit():
    (refused, *_) = [a for a in RECORDED if "refused" in a]
    memory = ours(refused)
    enough = memory.request_gib
    assert not dataclasses.replace(memory, kv_cache_memory_gib=enough - 0.001).admits
    assert dataclasses.replace(memory, kv_cache_memory_gib=enough + 0.001).admits


def test_the_shipped_drawings_are_those_of_the_shipped_profile_files():
    """After a profile file changes: `python -m tools.fit_map`."""
    from tools import fit_map  # not at the top: every process of a run would import matplotlib

    root = HERE.parents[2]
    found = fit_map.drawings()
    assert {name: (root / "docs/explanation" / name).read_text() for name in found} == found


def of_vllm(program, *words, stdin=""):
    """What a program of this folder answers, with the installed vLLM."""
    settings = environment() | {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    argv = [sys.executable, "-m", f"qualification.calibration.{program}", *words]
    done = subprocess.run(argv, input=stdin, env=settings, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@needs_vllm
def test_vllms_planner_still_answers_what_is_recorded():
    """
    The installed vLLM builds the CUDA modules at real size on the meta device, and plans their caches.

    One setting of each kind, and what was refused: each takes a second. All others are held by what we answer for them.
    """
    kinds = {("refused" in answer, *(answer.get(key) for key in STRUCTURE)): answer for answer in RECORDED}
    assert len(kinds) == 17
    answers = [*kinds.values()]
    settings = [{key: answer[key] for key in SETTINGS if key in answer} for answer in answers]
    assert of_vllm("planner", stdin=json.dumps(settings)) == answers


@pytest.mark.slow
@needs_vllm
def test_the_weights_of_vllms_modules_are_those_that_h200_loaded():
    """W4A16 with its BF16 draft head: 78.78 GiB a GPU at TP=2 (2 x H200, vLLM 0.32.0, 2026-11-22)."""
    held = of_vllm("weights", "w4a16")["w4a16"]
    assert weights_gib(held["gib"], held["everywhere_gib"], 2) == pytest.approx(78.78, rel=0.005)
