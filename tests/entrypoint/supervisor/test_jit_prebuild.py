"""Modules compiled during a first start: by real processes, over a package that stands in for FlashInfer."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.supervisor import jit_prebuild

PACKAGE = """
import os, time
from pathlib import Path

class Spec:
    def __init__(self, name): self.name = name
    def build(self, need_lock):
        assert need_lock
        if self.name == "broken": raise RuntimeError("nvcc: not found")
        if self.name == "slow": Path(os.environ["OUT"], "slow").write_text(str(os.getpid())); time.sleep(60)
        facts = [os.environ["CUDA_VISIBLE_DEVICES"], os.environ["FLASHINFER_CUDA_ARCH_LIST"], str(os.nice(0))]
        Path(os.environ["OUT"], self.name).write_text(" ".join(facts))

def one(): return Spec("one")
def other(): return Spec("other")
def broken(): return Spec("broken")
def slow(): return Spec("slow")
"""


@pytest.fixture
def environ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    caplog.set_level(logging.INFO)
    (tmp_path / "modules.py").write_text(PACKAGE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OUT": str(tmp_path), "FLASHINFER_CUDA_ARCH_LIST": "9.0a"}


def test_every_module_is_built_without_a_gpu_for_the_named_architecture_and_gives_way(
    environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(jit_prebuild.compile_all(["modules:one", "modules:other"], environ))
    assert caplog.messages == []
    for name in ("one", "other"):
        assert (tmp_path / name).read_text().rsplit(" ", 1) == [" 9.0a", str(min(os.nice(0) + 10, 19))]


def test_a_compiler_that_fails_is_logged_with_its_last_line(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(jit_prebuild.compile_all(["modules:broken"], environ))
    assert caplog.messages == [
        "note: the JIT prebuild failed with status 1 (RuntimeError: nvcc: not found); vLLM compiles these modules itself"
    ]


def test_a_module_that_is_not_installed_is_logged(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(jit_prebuild.compile_all(["flashinfer_of_tomorrow:gen"], environ))
    assert "No module named 'flashinfer_of_tomorrow'" in caplog.messages[0]


def test_what_is_still_compiling_when_the_engine_ends_is_ended_with_it(environ: dict[str, str], tmp_path: Path) -> None:
    async def begin_and_stop() -> None:
        task = asyncio.create_task(jit_prebuild.compile_all(["modules:slow"], environ))
        while not (tmp_path / "slow").exists() or not (tmp_path / "slow").read_text():
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        procfs.end_all(os.getpid())  # as VllmProcess.end does

    asyncio.run(begin_and_stop())
    pid = int((tmp_path / "slow").read_text())
    assert not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()
