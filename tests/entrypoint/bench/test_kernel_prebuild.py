"""DeepGEMM's kernels, compiled beforehand: for which plans, and how each product is launched; vLLM is a stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from dsv4_serve.demo.v4_layouts import LAYOUTS
from dsv4_serve.entrypoint.bench import kernel_prebuild
from dsv4_serve.entrypoint.bench.kernel_prebuild import LIMIT, PrebuiltKernels
from dsv4_serve.entrypoint.bench.kernel_products import Gemm, gemms
from dsv4_serve.entrypoint.bench.without_weights import SIZES
from dsv4_serve.entrypoint.cli import parser, request
from dsv4_serve.entrypoint.client.local_replica import Stopped
from dsv4_serve.entrypoint.parallel import Parallel
from dsv4_serve.entrypoint.supervisor import kernel_cache
from dsv4_serve.entrypoint.weights import prefetch
from tests.support.patience import slowness

FLASH = SIZES["deepseek-v4-flash"]
LINEAR, GROUPED, HYPER = Gemm("linear", 256, 128), Gemm("grouped", 128, 256, 2), Gemm("hyper connections", 24, 512)


def test_each_launch_is_in_one_part() -> None:
    lengths = {LINEAR: [1, 2, 64], GROUPED: [64, 128]}
    found = kernel_prebuild.launches([LINEAR, GROUPED], lengths)
    assert sorted(found, key=str) == sorted(
        [(one, tokens) for one, each in lengths.items() for tokens in each], key=str
    )
    assert found == kernel_prebuild.launches([LINEAR, GROUPED], lengths)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What a stand-in for vLLM was asked to launch, by shapes."""
    torch = pytest.importorskip("torch")
    done: list[tuple[Any, ...]] = []

    def linear(inputs: Any, weight: Any, result: Any) -> None:
        done.append(("linear", *(tuple(one.shape) for one in (*inputs, *weight, result))))

    def grouped(_args: str, inputs: Any, weight: Any, result: Any, *, recipe: Any) -> None:
        assert recipe == (1, 128, 128)
        assert inputs[1].stride()[0] == 1, "scales by column"
        done.append(("grouped", *(tuple(one.shape) for one in (*inputs, *weight, result))))

    def hyper(inputs: Any, mixes: Any, *, hidden_size: int, hc_mult: int) -> None:
        done.append(("hyper", tuple(inputs.shape), tuple(mixes.shape), hidden_size, hc_mult))

    def keys(settings: Any, **named: Any) -> list[str]:
        assert settings.scheduler_config.max_num_batched_tokens == 6
        assert (named["hidden_size"], named["hc_mult"], named["rms_eps"], named["sinkhorn_repeat"]) == (
            512,
            4,
            1e-6,
            20,
        )
        return ["1 split", "4 splits"]

    names = ("deep_gemm_warmup", "deep_gemm", "tilelang", "tilelang_kernels")
    warmup, deep_gemm, tilelang, sums = (ModuleType(name) for name in names)
    builds = SimpleNamespace(get_warmup_keys=keys, compile=lambda key: done.append(("sum", key)))
    sums._MHC_PRE_BIG_FUSE_TILELANG_KERNEL = builds  # type: ignore[attr-defined]
    warmup._generate_optimal_warmup_m_values = lambda tokens, n, device: [1, tokens]  # type: ignore[attr-defined]
    deep_gemm.fp8_gemm_nt, deep_gemm.fp8_einsum = linear, grouped  # type: ignore[attr-defined]
    tilelang._hc_prenorm_gemm_outputs = hyper  # type: ignore[attr-defined]
    mhc = "vllm.model_executor.kernels.mhc"
    for name in (
        "vllm",
        "vllm.utils",
        "vllm.model_executor",
        "vllm.model_executor.warmup",
        mhc.rpartition(".")[0],
        mhc,
    ):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, module in (
        ("vllm.model_executor.warmup", warmup),
        ("vllm.utils", deep_gemm),
        (mhc, tilelang),
        (mhc, sums),
    ):
        setattr(sys.modules[name], module.__name__, module)
        monkeypatch.setitem(sys.modules, f"{name}.{module.__name__}", module)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(kernel_prebuild, "DEVICE", "cpu")
    return done


def work(*products: Gemm, tokens: tuple[int, ...] = (6,)) -> dict[str, Any]:
    return {"gemms": [vars(one) for one in products], "tokens": list(tokens), "part": 0, "of": 1}


@pytest.mark.process
@pytest.mark.slow
def test_each_product_is_launched_as_vllm_does_it(launched: list[tuple[Any, ...]]) -> None:
    kernel_prebuild.main(work(LINEAR, GROUPED, HYPER))
    assert sorted(launched) == [
        ("grouped", (1, 2, 256), (1, 2, 2), (2, 128, 256), (2, 1, 2), (1, 2, 128)),
        ("grouped", (6, 2, 256), (6, 2, 2), (2, 128, 256), (2, 1, 2), (6, 2, 128)),
        ("hyper", (1, 512), (24, 512), 128, 4),
        ("hyper", (6, 512), (24, 512), 128, 4),
        ("linear", (1, 128), (1, 1), (256, 128), (2, 1), (1, 256)),
        ("linear", (6, 128), (6, 1), (256, 128), (2, 1), (6, 256)),
        ("sum", "1 split"),
        ("sum", "4 splits"),
    ]


@pytest.mark.process
@pytest.mark.slow
def test_a_product_that_fails_does_not_keep_the_others_from_being_compiled(
    launched: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any, **_names: Any) -> None:
        raise RuntimeError("no such layout")

    monkeypatch.setattr(sys.modules["vllm.utils"].deep_gemm, "fp8_einsum", fails)
    with pytest.raises(RuntimeError, match="no such layout"):
        kernel_prebuild.main(work(GROUPED, LINEAR))
    assert [one[0] for one in launched] == ["linear", "linear"]


@pytest.mark.process
@pytest.mark.slow
def test_without_tilelang_the_products_are_compiled(
    launched: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "vllm.model_executor.kernels.mhc.tilelang_kernels")
    with pytest.raises(ImportError):
        kernel_prebuild.main(work(LINEAR, HYPER))
    assert sorted(one[0] for one in launched) == ["hyper", "hyper", "linear", "linear"]


@pytest.mark.parametrize(("hardware", "tp", "compiles"), [("h200", "2", True), ("b300", "2", False)])
def test_a_first_start_on_sm90_gets_the_kernels_of_its_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hardware: str, tp: str, compiles: bool
) -> None:
    monkeypatch.setenv("HARDWARE", hardware)
    options, flags = parser.parse(["warm", "--without-weights", "--model", "w4a16", "--profile", "64k", "--tp", tp])
    selection, plan = request.resolved(options, flags)
    calls: list[Any] = []

    def compile_all(*args: Any) -> PrebuiltKernels:
        calls.append(args)
        return PrebuiltKernels(58, 40.0)

    monkeypatch.setattr(kernel_prebuild, "compile_all", compile_all)
    environ = {"HOME": "/home/x", "DSV4_CACHE": str(tmp_path)}
    found = kernel_prebuild.of_plan(selection, plan, environ, 1000.0)
    assert (found is not None) is compiles
    folder = kernel_cache.installed_folder(plan, environ)
    for products, tokens, variables, _, seconds in calls:
        assert seconds == LIMIT
        assert products == gemms(FLASH, LAYOUTS["w4a16"], Parallel(2))
        assert {1, 64, 2048, 8192, *plan.value("cudagraph-capture-sizes")} <= set(tokens)
        assert (variables["VLLM_CACHE_ROOT"], variables["HOME"]) == (str(folder / "vllm"), "/home/x")
    kernel_cache.find(plan, folder).keep(600.0, {})
    assert kernel_prebuild.of_plan(selection, plan, environ) is None, "an earlier start filled it"


@pytest.mark.parametrize(
    ("given", "layout", "drafts"),
    [
        (["--model", "flash"], "native", True),
        (["--model", "flash-0731"], "flash-0731", True),
        (["--model", "flash-0731", "--speculative-config.num_speculative_tokens", "0"], "flash-0731", False),
        (["--model", "acti"], "acti", True),
        (["--model", "flash-base"], "native", True),
    ],
)
def test_the_products_are_those_of_the_layout_that_is_served(
    monkeypatch: pytest.MonkeyPatch, given: list[str], layout: str, drafts: bool
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    options, flags = parser.parse(["warm", *given, "--profile", "64k", "--tp", "4"])
    found = kernel_prebuild.products_of(*request.resolved(options, flags))
    assert found == gemms(FLASH, LAYOUTS[layout], Parallel(4), drafts=drafts)


def test_sizes_that_are_not_published_have_no_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    options, flags = parser.parse(["warm", "--model", "v41-flash", "--profile", "v41", "--tp", "4"])
    assert kernel_prebuild.products_of(*request.resolved(options, flags)) == []


def test_what_cannot_be_compiled_beforehand_stops_no_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    options, flags = parser.parse(["warm", "--without-weights", "--model", "w4a16", "--profile", "64k", "--tp", "2"])
    selection, plan = request.resolved(options, flags)

    def popen(*_args: Any, **_names: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert kernel_prebuild.of_plan(selection, plan, {"DSV4_CACHE": str(tmp_path)}) is None
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "Resource temporarily unavailable" in warnings[0]


def test_a_signal_to_stop_ends_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    options, flags = parser.parse(["warm", "--without-weights", "--model", "w4a16", "--profile", "64k", "--tp", "2"])
    selection, plan = request.resolved(options, flags)

    def compile_all(*_args: Any) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(kernel_prebuild, "compile_all", compile_all)
    with pytest.raises(Stopped):
        kernel_prebuild.of_plan(selection, plan, {"DSV4_CACHE": str(tmp_path)})


def test_no_more_processes_than_memory_is_left_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(128))
    found = []
    for memory in (1, 2 * kernel_prebuild.MEMORY, 1 << 40):
        monkeypatch.setattr(prefetch, "available", lambda memory=memory: memory)
        found.append(kernel_prebuild._processes())
    assert found == [1, 2, kernel_prebuild.PROCESSES]


PROGRAM = """
import json, os, pathlib, signal, subprocess, sys, time
work = json.loads(sys.argv[-1])
if "COMPILER" in os.environ:
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path(os.environ["COMPILER"]).write_text(str(child.pid))
    child.wait()
if "KILLED" in os.environ:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(float(os.environ.get("SLEEPS", "0")))
if work["part"] == 1:
    sys.exit("RuntimeError: out of memory")
folder = pathlib.Path(os.environ["VLLM_CACHE_ROOT"], "deep_gemm/cache", str(work["part"]))
folder.mkdir(parents=True)
(folder / "kernel.cubin").touch()
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every part runs this program instead."""
    file = tmp_path / "python"
    file.write_text(f"#!{sys.executable}\n{PROGRAM}")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))


def test_every_part_has_a_process_and_a_failed_one_is_told(program: None, tmp_path: Path) -> None:
    (tmp_path / "vllm/deep_gemm/cache/before").mkdir(parents=True)
    (tmp_path / "vllm/deep_gemm/cache/before/kernel.cubin").touch()
    found = kernel_prebuild.compile_all([LINEAR], [64], {"VLLM_CACHE_ROOT": str(tmp_path / "vllm")}, 3)
    assert (found.kernels, found.failed) == (2, "RuntimeError: out of memory")


def test_what_takes_too_long_is_ended(program: None, tmp_path: Path) -> None:
    variables = {"VLLM_CACHE_ROOT": str(tmp_path), "SLEEPS": str(600 * slowness())}
    found = kernel_prebuild.compile_all([LINEAR], [64], variables, 4, 2.0)
    assert (found.kernels, found.failed) == (0, "not done after 2 s")
    assert found.seconds < 7, "the time is that of all processes together"


def test_a_process_that_the_kernel_kills_is_named_by_its_status(program: None, tmp_path: Path) -> None:
    found = kernel_prebuild.compile_all([LINEAR], [64], {"VLLM_CACHE_ROOT": str(tmp_path), "KILLED": "1"}, 1)
    assert (found.kernels, found.failed) == (0, "exit status -9")


def test_a_compiler_ends_with_its_process(program: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    variables = {"COMPILER": str(file), "PATH": os.defpath, "VLLM_CACHE_ROOT": str(tmp_path)}
    monkeypatch.setattr(kernel_prebuild, "_failure", lambda *_args: _written(file))
    kernel_prebuild.compile_all([LINEAR], [64], variables, 1)
    compiler = int(file.read_text())
    until = time.monotonic() + 10 * slowness()
    while (alive := _runs(compiler)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive


def _written(file: Path) -> str:
    until = time.monotonic() + 20 * slowness()
    while not (file.exists() and file.read_text()) and time.monotonic() < until:
        time.sleep(0.01)
    return ""


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_many_cores_do_not_start_a_process_each(program: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_prebuild, "PROCESSES", 2)
    found = kernel_prebuild.compile_all([LINEAR], [64], {"VLLM_CACHE_ROOT": str(tmp_path)}, 128)
    assert found.kernels == 1, "part 0; part 1 fails"
