"""The job of DeepGEMM's kernels: what it runs, and what it concludes; the kernels are stand-ins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import kernel_prebuild
from dsv4_serve.entrypoint.bench.kernel_prebuild import PrebuiltKernels
from qualification.gpu import run_gemms
from tests.support.patience import slowness

WARMUP = """
import json, os, pathlib, sys, time
assert json.loads(sys.argv[1]) == json.loads(os.environ["LINEAR"]) and sys.argv[2] == "8192"
time.sleep(float(os.environ.get("SLEEPS", "0")))
for name in os.environ["KERNELS"].split(","):
    folder = pathlib.Path(os.environ["VLLM_CACHE_ROOT"], "deep_gemm/cache", name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.cubin").touch()
print("noise")
print(41.5)
"""
ATTENTION = [[1536, 4096], [16384, 1024], [4096, 4096]]


def run(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *compiled: str,
    seconds: int = 600,
    model: str = "w4a16",
    linear: Any = ATTENTION,
) -> tuple[int, dict[str, Any]]:
    def compile_all(products: Any, tokens: Any, environ: Any, processes: int) -> PrebuiltKernels:
        cache = Path(environ["VLLM_CACHE_ROOT"])
        for name in compiled:
            (cache / "deep_gemm/cache" / name).mkdir(parents=True)
            (cache / "deep_gemm/cache" / name / "kernel.cubin").touch()
        return PrebuiltKernels(len(compiled), 40.0)

    monkeypatch.setenv("HARDWARE", "h200")
    monkeypatch.setenv("KERNELS", "a,b")
    monkeypatch.setenv("LINEAR", json.dumps(linear))
    monkeypatch.setattr(run_gemms, "WARMUP", WARMUP)
    monkeypatch.setattr(kernel_prebuild, "compile_all", compile_all)
    given = ["--out", str(folder), "--share", "2", "--deadline", str(seconds), "--profile", "64k", "--model", model]
    monkeypatch.setattr(sys, "argv", ["run_gemms", *given])
    return run_gemms.main(), json.loads((folder / "gemms.json").read_text())


@pytest.mark.parametrize(("compiled", "added"), [(("a", "b", "c"), []), (("a",), ["b"])])
def test_a_kernel_that_vllm_still_compiles_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiled: tuple[str, ...], added: list[str]
) -> None:
    status, found = run(monkeypatch, tmp_path, *compiled)
    assert (status == 1) is bool(added)
    assert found["many"]["names"] == list(compiled)
    assert found["vllm_after"] == {"seconds": 41.5, "kernels": len(added), "names": added}
    assert found["vllm_alone"] == {"seconds": 41.5, "kernels": 2, "names": ["a", "b"]}


def test_the_products_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of_flash = [*ATTENTION, [8192, 1024], [2048, 4096], [4096, 1024], [4096, 12288]]
    _, found = run(monkeypatch, tmp_path, "a", "b", model="flash-0731", linear=of_flash)
    assert found["vllm_after"]["kernels"] == 0


def test_what_the_deadline_cuts_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLEEPS", str(600 * slowness()))
    _, found = run(monkeypatch, tmp_path, "a", seconds=1)
    assert (found["vllm_after"]["cut"] <= 1, found["vllm_after"]["kernels"]) == (True, 0)
