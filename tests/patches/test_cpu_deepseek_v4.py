"""The real DeepSeek-V4 with its draft head, on CPU: with both series, and with the CPU series alone."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dsv4_serve.demo.numerics import checkpoint, compare, golden
from dsv4_serve.demo.patched import patched_tree
from dsv4_serve.entrypoint.vllm_log import known_failures
from dsv4_serve.patcher.series import PATCHES

CPU_INFO = Path("/proc/cpuinfo")
pytestmark = pytest.mark.skipif(
    not CPU_INFO.exists() or "avx512_bf16" not in CPU_INFO.read_text(),
    reason="vLLM's CPU wheel has DeepSeek-V4's kernels for x86 with AVX512_BF16 only",
)

SCRIPT = Path(__file__).with_name("cpu_drafts.py")
LAYOUTS = ("bf16", "native", "w4a16", "nvfp4", "acti", "pro")
GOOD = [*(f"{layout}:good:1" for layout in LAYOUTS), "flash-0731:good:7", "w4a16:good:1:fp8-shared"]
BAD = ["bf16:scrambled:1", "bf16:holed:1", "bf16:removed:1", "flash-0731:scrambled:5", "flash-0731:removed:5"]
BY_LOAD = "bf16:good:3:by-load"
ALONE = ["w4a16:good:1", "pro:good:1", "bf16:holed:1"]
REQUANTIZED = "native:good:1:fp8-shared"


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Copies of vLLM with both series, and with the CPU series alone."""
    return [
        cpu_tree(tmp_path_factory.mktemp("both"), alone=False),
        cpu_tree(tmp_path_factory.mktemp("alone"), alone=True),
    ]


@pytest.fixture(scope="module")
def series(trees):
    """{case: what was measured} with both series, and with the CPU series alone."""
    with ThreadPoolExecutor() as side_by_side:
        return tuple(side_by_side.map(measured, trees, [[*GOOD, *BAD, BY_LOAD, REQUANTIZED], ALONE]))


@pytest.fixture(scope="module")
def both(series):
    return series[0]


@pytest.fixture(scope="module")
def alone(series):
    return series[1]


@pytest.mark.parametrize("case", GOOD)
def test_a_good_draft_head_drafts_what_the_model_says(both, case):
    found = both[case]
    assert found.get("wrong") == 0, found
    assert found["accepted"] >= 0.99 * found["drafted"] > 0, found


def test_shared_experts_that_are_fp8_already_are_not_quantized_again(both):
    found = known_failures.find(both[REQUANTIZED].get("error", ""))
    assert found
    assert found.name == "requantized-layer"


def test_fewer_tokens_are_drafted_together_than_alone_and_the_answers_stay(both):
    found = both[BY_LOAD]
    assert [found[load]["wrong"] for load in ("1", "2", "4")] == [0, 0, 0], found
    alone, two, four = (found[load] for load in ("1", "2", "4"))
    assert alone["drafted"] == 3 * alone["drafts"] > 0, found
    assert two["drafted"] == two["drafts"] > 0, found
    assert four["drafted"] == 0, found
    for load in (alone, two):
        assert load["accepted"] >= 0.9 * load["drafted"], found


@pytest.mark.parametrize("case", ["bf16:scrambled:1", "flash-0731:scrambled:5"])
def test_a_scrambled_drafter_changes_no_answer_and_is_seen_in_the_counters(both, case):
    found = both[case]
    assert found.get("wrong") == 0, found
    assert found["accepted"] <= 0.2 * found["drafted"], found  # of 62 tokens it guesses one right now and then


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("bf16:holed:1", "attn.wo_b.weight"),
        ("bf16:removed:1", "has no draft head"),
        ("flash-0731:removed:5", "drafter weights were not initialized"),
    ],
)
def test_an_incomplete_drafter_is_refused(both, case, reason):
    assert reason in both[case].get("error", "")


def test_without_the_gpu_series_stock_vllm_fails_on_cpu_as_on_gpus(alone):
    assert "mtp_block.ffn.experts.routed_experts.w13_weight" in alone["w4a16:good:1"].get("error", "")
    for silent in ("pro:good:1", "bf16:holed:1"):
        assert alone[silent].get("wrong") == 0, alone
        assert alone[silent]["accepted"] <= 0.2 * alone[silent]["drafted"], alone


def test_the_prefix_cache_has_a_beginning_that_prompts_share_and_answers_stay(trees, tmp_path):
    result = tmp_path / "shared.json"
    run(trees[0], ["-m", "tests.patches.cpu_shared", result], result)
    found = json.loads(result.read_text())
    assert found["cached"] == [0, 0, 512, 512], found
    assert (found["wrong"], found["accepted"]) == (0, found["drafted"]), found
    assert found["drafted"] > 0


def test_a_random_checkpoint_is_answered_as_the_reference_computes_alone_and_in_a_crowd(trees, tmp_path):
    checkpoint.write(tmp_path / "native", "native")
    out = tmp_path / "out.npz"
    options = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28, "max_model_len": 512}
    program = ["-m", "dsv4_serve.demo.numerics.engine", out, tmp_path / "native", "--options", json.dumps(options)]
    run(trees[0], [*program, "--prompts", "short", "middle", "--crowd", "1"], out)
    got = dict(np.load(out))
    verdict = compare.compare(golden.load(), got, compare.limits())
    assert verdict.right, verdict.reasons
    assert {"middle median", "middle/draft median"} <= verdict.figures.keys()
    for name in ("short", "middle"):
        np.testing.assert_array_equal(got[f"{name}@0"], got[name])


def test_two_workers_run_in_spare_processes_and_end_with_one_that_is_killed(trees, tmp_path):
    """The shape that `dsv4 serve` asks for on two GPUs."""
    result = tmp_path / "workers.json"
    run(trees[0], ["-m", "tests.patches.cpu_workers", result], result)
    found = json.loads(result.read_text())
    titles = ("VLLM::EngineCore", "VLLM::Worker_TP0", "VLLM::Worker_TP1")
    assert [found["serving"].get(str(pid)) for pid in found["launched"]] == list(titles), found
    assert (found["wrong"], found["accepted"]) == (0, found["drafted"]), found
    assert found["drafted"] > 0
    assert "EngineCore encountered an issue" in found["error"]
    assert found["left"] == []


def measured(tree, cases):
    result = tree.with_name(f"{cases[0].replace(':', '-')}.json")
    run(tree, [SCRIPT, result, *cases], result)
    return json.loads(result.read_text())


def run(tree, program, result):
    path = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = "1"  # threads would mostly wait for each other
    environment["MALLOC_PERTURB_"] = "85"  # glibc fills new memory: a weight that is not loaded is never zero by chance
    environment["VLLM_CACHE_ROOT"] = str(tree / "cache")  # trees that differ would evict each other's models from one
    environment["TRITON_INTERPRET"] = "1"
    environment["TORCH_COMPILE_DISABLE"] = (
        "1"  # compiling how log probabilities are ranked takes longer than all else of it
    )
    command = [sys.executable, *program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert result.exists(), done.stderr[-4000:]


def cpu_tree(folder, *, alone):
    """Copy the installed package and apply the CPU series; `alone` leaves out the GPU series that it includes."""
    series = shutil.copytree(PATCHES, folder / "patches") / "0.32.0-cpu"
    if alone:
        lines = (series / "series").read_text().splitlines(keepends=True)
        (series / "series").write_text("".join(line for line in lines if not line.startswith("../")))
    return patched_tree(folder / "tree", str(series))
