"""Where a start is, on logs of real starts (vLLM 0.32.0; H200 and CPU, 2026-11-22) and real /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.supervision_settings import Supervise
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.startup_patterns import StartupMark, read
from dsv4_serve.entrypoint.vllm_log.startup_phase import (
    ORDER,
    LoadRate,
    SignsOfLife,
    StartupProgress,
    cpu_seconds,
    loaded_bytes,
    received_bytes,
)
from tests.support.patience import slowness
from tests.support.vllm_logs import lines_of

LIMITS = {phase.replace("-", " "): seconds for phase, seconds in Supervise().stall.items()}
WORKER = "(Worker_TP0 pid=1) INFO 11-22 04:12:25 [x.py:1] "


def feed(progress: StartupProgress, line: str, now: float) -> bool:
    return progress.feed(LogLine.parse(line), now)


def followed(lines: list[str]) -> tuple[StartupProgress, list[str]]:
    """Return the progress after these lines, and the phases it went through."""
    progress, phases = StartupProgress(0.0), ["starting"]
    for number, line in enumerate(lines):
        feed(progress, line, float(number))
        if progress.phase != phases[-1]:
            phases.append(progress.phase)
    return progress, phases


def test_a_start_on_two_gpus_goes_through_its_phases() -> None:
    progress, phases = followed(lines_of("h200-tp2-warm"))
    assert phases == [
        "starting",
        "connecting ranks",
        "loading weights",
        "compiling kernels",
        "profiling",
        "compiling kernels",
        "warming up",
    ]
    assert (progress.detail, progress.caches) == ("API open", "warm")


def test_kernels_that_are_compiled_make_a_cold_start() -> None:
    progress, phases = followed(lines_of("h200-tp1-cold"))
    assert progress.caches == "cold"
    assert "connecting ranks" not in phases  # one rank has nobody to meet


def test_a_cpu_that_compiles_nothing_has_neither_cold_nor_warm_caches() -> None:
    progress, phases = followed(lines_of("cpu-serve"))
    assert phases == ["starting", "loading weights", "profiling", "warming up"]
    assert (progress.detail, progress.caches) == ("API open", "unknown")


@pytest.mark.parametrize("name", ["cpu-compile-cold", "cpu-compile-cache-unusable"])
def test_what_torch_compile_has_to_compile_again_makes_a_cold_start(name: str) -> None:
    progress, phases = followed(lines_of(name))
    assert progress.caches == "cold"
    assert phases == ["starting", "loading weights", "compiling kernels", "profiling", "warming up"]


@pytest.mark.parametrize(
    "line",
    [
        "[backbone] Directly load AOT compilation from path /var/cache/vllm/x",
        "Directly load the compiled graph(s) for compile range (1, 2048) from the cache, took 0.911 s",
    ],
)
def test_what_torch_compile_finds_in_its_cache_makes_a_warm_start(line: str) -> None:
    progress, _ = followed([WORKER + "Model loading took 1.64 GiB", WORKER + line])
    assert progress.caches == "warm"


def test_a_log_of_requests_changes_nothing_after_the_start() -> None:
    progress, _ = followed(lines_of("h200-tp2-warm"))
    assert not feed(
        progress, "(APIServer pid=1) INFO 11-22 04:12:25 [x.py:1] Received request: 'Loading model from scratch'", 9
    )
    progress.enter("ready", 10.0)
    assert not feed(progress, WORKER + "Loading model from scratch...", 11.0)
    assert progress.phase == "ready"


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        (
            "Loading safetensors checkpoint shards:  37% Completed | 13/35 [00:31<00:52,  2.38s/it]",
            StartupMark("loading weights", 37.0, "shard 13 of 35"),
        ),
        (
            "Loading safetensors checkpoint shards (eager):  37% Completed | 13/35 [00:31<00:52]",
            StartupMark("loading weights", 37.0, "shard 13 of 35"),
        ),
        (
            "Multi-thread loading shards: 100% Completed | 4/4 [00:31<00:00]",
            StartupMark("loading weights", 100.0, "shard 4 of 4"),
        ),
        (
            "Loading safetensors using InstantTensor loader:   8% Completed | 6.1G/72.9G [00:03<00:33]",
            StartupMark("loading weights", 8.0, "shard 6.1G of 72.9G"),
        ),
        (
            "DeepGEMM warmup:  45%|████▍     | 355/790 [01:02<01:16,  5.72it/s]",
            StartupMark("compiling kernels", None, "DeepGEMM shape 355 of 790"),
        ),
        (
            "JIT kernel warmup (212 compile keys):  10%|█         | 2/20 [00:02<00:20, K (3 keys)]",
            StartupMark("compiling kernels", None, "JIT kernel 2 of 20"),
        ),
        (
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  40%|████      | 2/5 [00:01<00:01]",
            StartupMark("capturing graphs", None, "graph 2 of 5"),
        ),
        (
            "Capturing decode CUDA graphs (FULL):  40%|████      | 2/5 [00:01<00:01]",
            StartupMark("capturing graphs", None, "decode graph 2 of 5"),
        ),
        (
            "2026-11-22 04:04:21 - INFO - core.py:564 - flashinfer.jit: Building JIT module fused_moe_90; this can",
            StartupMark("compiling kernels", None, "FlashInfer fused_moe_90", cold=True),
        ),
        (WORKER + "Available KV cache memory: 30.17 GiB", StartupMark("profiling", None, "30.17 GiB for the KV cache")),
        (
            WORKER + "[backbone] Dynamo bytecode transform time: 3.20 s",
            StartupMark("compiling kernels", None, "torch.compile, after Dynamo"),
        ),
        (WORKER + "No available shared memory broadcast block found in 60 seconds.", None),
        ('INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK', None),
    ],
)
def test_a_line_says_where_the_start_is(line: str, mark: StartupMark | None) -> None:
    assert read(LogLine.parse(line)) == mark


def test_graphs_captured_on_trial_are_part_of_profiling() -> None:
    """vLLM captures some before the KV cache is there, to size them, and all of them after it."""
    _, phases = followed(
        [
            WORKER + "Model loading took 78.78 GiB memory and 25.0 seconds",
            "Capturing CUDA graphs (FULL):  50%|█████     | 1/2 [00:01<00:01]",
            WORKER + "Graph capturing finished in 3 secs, took 0.20 GiB",
            WORKER + "Available KV cache memory: 30.17 GiB",
            WORKER + "GPU KV cache size: 78,607 tokens, Maximum concurrency",
            WORKER + "JIT kernel warmup starting.",
            "DeepGEMM warmup: 100%|██████████| 790/790 [03:11<00:00]",
            "Capturing CUDA graphs (FULL):  50%|█████     | 1/2 [00:01<00:01]",
            WORKER + "Graph capturing finished in 3 secs, took 0.20 GiB",
        ]
    )
    assert phases[1:] == ["compiling kernels", "profiling", "compiling kernels", "capturing graphs", "warming up"]


def test_a_late_rank_moves_nothing_back() -> None:
    progress, _ = followed([WORKER + "Model loading took 1.64 GiB", WORKER + "GPU KV cache size: 1,024 tokens"])
    assert not feed(progress, WORKER.replace("TP0", "TP1") + "Loading weights took 1.43 seconds", 9.0)
    assert progress.phase == "profiling"


def test_the_draft_heads_shards_do_not_take_the_percentage_back() -> None:
    progress, _ = followed(
        [
            "Loading safetensors checkpoint shards: 100% Completed | 35/35 [01:00<00:00]",
            "Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?]",
        ]
    )
    assert (progress.percent, progress.detail) == (100.0, "shard 0 of 1")


def test_a_rank_that_is_never_met_stalls_the_start_after_its_limit() -> None:
    progress = StartupProgress(0.0)
    feed(progress, WORKER + "vLLM is using nccl==2.29.7", 10.0)
    feed(progress, WORKER + "No available shared memory broadcast block found in 60 seconds.", 65.0)
    assert progress.stalled(69.9, LIMITS) == ""
    sentence = progress.stalled(70.0, LIMITS)
    assert sentence.startswith(
        "connecting ranks: no progress for 60 s (limit 60 s, supervise.stall.connecting-ranks); last line: No available"
    )


def test_the_same_line_again_is_no_progress_but_a_kernel_is() -> None:
    progress = StartupProgress(0.0)
    feed(progress, WORKER + "Loading model from scratch...", 1.0)
    assert not feed(progress, WORKER + "Loading model from scratch...", 2.0)
    feed(progress, WORKER + "Model loading took 1.64 GiB", 3.0)
    line = "2026-11-22 04:04:21  [TileLang:tilelang.jit.kernel:INFO] (kernel.py:129): TileLang begins to compile kernel `a`"
    assert feed(progress, line, 4.0)
    assert feed(progress, line, 5.0)
    assert progress.progressed == 5.0


def test_another_detail_of_the_same_phase_is_progress() -> None:
    progress = StartupProgress(0.0)
    feed(progress, "Loading safetensors checkpoint shards:   0% Completed | 0/35 [00:00<?]", 1.0)
    assert feed(progress, "Loading safetensors checkpoint shards:   0% Completed | 1/35 [00:00<?]", 2.0)
    assert feed(progress, "Loading safetensors checkpoint shards:   1% Completed | 1/35 [00:00<?]", 3.0)
    assert not feed(progress, "Loading safetensors checkpoint shards:   1% Completed | 1/35 [00:00<?]", 4.0)
    assert progress.progressed == 3.0


def test_tokens_of_another_phase_do_not_size_the_cache() -> None:
    progress, _ = followed([WORKER + "Model loading took 1.64 GiB", "DeepGEMM warmup:  45%|████▍     | 355/790 tokens"])
    progress._sized = False
    feed(progress, WORKER + "Available KV cache memory: 30.17 GiB", 3.0)
    assert not progress._sized
    feed(progress, WORKER + "GPU KV cache size: 1,024 tokens", 4.0)
    assert progress._sized


def test_a_silent_log_and_a_long_line_are_shown_as_such() -> None:
    progress = StartupProgress(0.0)
    assert progress.stalled(1e6, LIMITS).endswith(
        "last line: none; vLLM logs nothing at level INFO, and its processes neither read, received nor computed"
    )
    feed(progress, WORKER + "x" * 300, 0.0)
    assert progress.stalled(1e6, LIMITS).endswith(f"last line: {'x' * 200}")


def test_bytes_that_arrive_keep_a_silent_load_alive() -> None:
    progress = StartupProgress(0.0)
    feed(progress, WORKER + "Loading model from scratch...", 0.0)
    progress.moved(599.0)
    assert progress.stalled(1198.0, LIMITS) == ""
    assert "loading weights: no progress for 600 s" in progress.stalled(1199.0, LIMITS)


def test_only_vllms_own_line_at_level_info_shows_that_the_log_says_something() -> None:
    progress = StartupProgress(0.0)
    feed(progress, "INFO:     Started server process [7]", 0.0)
    feed(progress, WORKER.replace("INFO", "WARNING") + "x", 0.0)
    assert not progress.heard
    feed(progress, WORKER + "x", 0.0)
    assert progress.heard


def proc(root: Path, *, read: int = 0, ticks: int = 0, received: int = 0, pid: int = 7) -> Path:
    folder = root / str(pid)
    (folder / "net").mkdir(parents=True, exist_ok=True)
    (folder / "io").write_text(f"rchar: {read}\n")
    (folder / "stat").write_text(f"{pid} (a b) S {' '.join('0' * 10)} {ticks} {ticks // 2} 7 7\n")
    (folder / "net/dev").write_text(f"head\nhead\n  lo: 99999999999 0\n  eth0: {received} 0\n")
    return root


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, False),
        ({"read": 3 << 20}, True),
        ({"received": 3 << 20}, True),
        ({"ticks": 20}, True),
        ({"read": 1 << 20, "ticks": 3}, False),
    ],
)
def test_a_process_shows_that_it_works(tmp_path: Path, changes: dict[str, int], seen: bool) -> None:
    signs = SignsOfLife(100.0)
    assert not signs.seen(0.0, [7], proc(tmp_path))
    assert signs.seen(1.0, [7], proc(tmp_path, **changes)) is seen
    assert signs.seen(2.0, [7, 8], proc(tmp_path, **changes))  # another process


def test_work_alone_does_not_keep_a_start_going_for_ever(tmp_path: Path) -> None:
    signs = SignsOfLife(100.0)
    found = [signs.seen(now, [7], proc(tmp_path, ticks=int(100 * now))) for now in (0.0, 1.0, 99.0, 101.0, 102.0)]
    assert found == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("changes", "seconds", "seen"),
    [
        ({"read": (1 << 20) + 1}, 1.0, True),
        ({"read": 1 << 20}, 1.0, False),
        ({"read": (4 << 20) + 1}, 4.0, True),
        ({"read": 4 << 20}, 4.0, False),
        ({"ticks": 4}, 1.0, True),  # 0.04 and 0.02 s
        ({"ticks": 10}, 4.0, False),
        ({"ticks": 16}, 4.0, True),
    ],
)
def test_work_is_counted_from_sample_to_sample(
    tmp_path: Path, changes: dict[str, int], seconds: float, seen: bool
) -> None:
    before = {"read": 5 << 30, "ticks": 1000, "received": 1 << 30}
    signs = SignsOfLife(1e6)
    assert not signs.seen(900.0, [7], proc(tmp_path, **before))
    after = {name: value + changes.get(name, 0) for name, value in before.items()}
    assert signs.seen(900.0 + seconds, [7], proc(tmp_path, **after)) is seen


def test_two_samples_at_one_moment_say_nothing(tmp_path: Path) -> None:
    signs = SignsOfLife(100.0)
    assert not signs.seen(5.0, [7], proc(tmp_path))
    assert not signs.seen(5.0, [7, 8], proc(tmp_path, read=1 << 30))


def test_patience_ends_exactly_at_its_limit(tmp_path: Path) -> None:
    signs = SignsOfLife(100.0)
    found = [signs.seen(now, [7], proc(tmp_path, ticks=int(100 * now))) for now in (50.0, 150.0, 150.1)]
    assert found == [False, True, False]


def test_cpu_time_is_that_of_user_and_system_of_all_that_live(tmp_path: Path) -> None:
    proc(tmp_path, ticks=200, pid=7)
    proc(tmp_path, ticks=100, pid=9)
    tick = os.sysconf("SC_CLK_TCK")
    assert cpu_seconds([], tmp_path) == 0
    assert cpu_seconds([7, 8, 9], tmp_path) == (200 + 100 + 100 + 50) / tick


def test_bytes_received_are_those_of_every_interface_but_loopback(tmp_path: Path) -> None:
    proc(tmp_path)
    (tmp_path / "7/net/dev").write_text("head\nhead\n eth0: 5 9\n  lo: 99 0\n eth1: 7 9\n")
    assert received_bytes(7, tmp_path) == 12
    assert received_bytes(8, tmp_path) == 0
    signs = SignsOfLife(100.0)
    assert not signs.seen(0.0, [], proc(tmp_path, pid=1))
    assert not signs.seen(1.0, [], proc(tmp_path, pid=1, received=1 << 30))  # no process, so nobody receives
    proc(tmp_path, pid=0)
    assert received_bytes(0, tmp_path) == 0


def test_kilobytes_of_the_kernel_are_1024_bytes(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/io").write_text("rchar: 3\n")
    (tmp_path / "7/status").write_text("Name: x\nRssFile:\t  2 kB\n")
    assert loaded_bytes([7], tmp_path) == 2051
    (tmp_path / "7/status").write_text("Name: x\n")
    assert loaded_bytes([7], tmp_path) == 3


def test_a_phase_without_a_limit_never_stalls() -> None:
    progress = StartupProgress(0.0)
    progress.enter("ready", 0.0)
    assert progress.stalled(1e9, LIMITS) == ""


def test_every_phase_of_a_start_has_a_limit() -> None:
    assert set(LIMITS) == {"fetching weights", *ORDER}


READER = """
import mmap, sys
read, mapped = (open(name, "rb") for name in sys.argv[1:])
read.read()
pages = mmap.mmap(mapped.fileno(), 0, access=mmap.ACCESS_READ)
sum(pages[at] for at in range(0, len(pages), mmap.PAGESIZE))
print("done", flush=True)
sys.stdin.read()
"""


def test_bytes_read_and_bytes_mapped_are_counted(tmp_path: Path) -> None:
    size = 32 << 20
    files = [tmp_path / "read", tmp_path / "mapped"]
    for file in files:
        file.write_bytes(os.urandom(size))
    child = subprocess.Popen(
        [sys.executable, "-c", READER, *map(str, files)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "done\n"
    idle = loaded_bytes([os.getpid()])
    assert loaded_bytes([child.pid, os.getpid()]) >= loaded_bytes([child.pid]) + idle
    assert 2 * size <= loaded_bytes([child.pid]) < 3 * size
    child.communicate(timeout=10 * slowness())
    assert loaded_bytes([child.pid]) == 0  # it has ended


def test_a_rate_is_of_the_last_seconds_only() -> None:
    rate = LoadRate(window=10.0)
    assert rate.per_second is None
    for second in range(31):
        rate.add(float(second), 1000 * min(second, 20))
    assert rate.loaded == 20_000
    assert rate.per_second == 0.0
    assert rate.percent(40_000) == 50.0
    assert rate.percent(20_000) == 99.0
    assert rate.percent(0) is None


def test_a_rate_needs_two_samples_and_the_oldest_one_is_that_at_the_windows_edge() -> None:
    rate = LoadRate(window=10.0)
    rate.add(100.0, 500)
    assert rate.per_second is None
    rate.add(100.0, 900)
    assert rate.per_second is None  # no time has passed
    rate = LoadRate(window=10.0)
    for now, count in ((100.0, 0), (104.0, 40), (108.0, 1000), (112.0, 1000)):
        rate.add(now, count)
    assert rate.per_second == 1000 / 12.0  # 104 is within the window, so 100 is its edge
    rate.add(114.0, 1000)
    assert rate.per_second == 960 / 10.0
    assert rate.percent(1) == 99.0


def test_a_rate_of_two_samples_is_kept_however_old_they_are() -> None:
    rate = LoadRate()
    rate.add(0.0, 0)
    rate.add(1000.0, 5000)
    assert rate.per_second == 5.0


def test_a_shard_that_is_unmapped_is_no_loss() -> None:
    rate = LoadRate()
    for second, count in enumerate([500, 1500, 700, 1700]):
        rate.add(float(second), count)
    assert rate.loaded == 2000


def test_reading_a_line_takes_microseconds() -> None:
    lines = lines_of("h200-tp2-warm")
    began = time.perf_counter()
    for _ in range(10):
        for line in lines:
            read(LogLine.parse(line))
    assert (time.perf_counter() - began) / (10 * len(lines)) < 2e-4
