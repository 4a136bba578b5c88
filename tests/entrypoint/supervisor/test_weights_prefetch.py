"""Weights read ahead while vLLM starts: from the folder that it will load, and without a start that depends on it."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import weights_prefetch
from dsv4_serve.entrypoint.weights import prefetch
from tests.support.patience import slowness


def plan_of(model: str, **flags: str) -> Plan:
    return Plan({}, {name: Setting(value, "test") for name, value in {"model": model, **flags}.items()}, {})


def test_a_folder_is_taken_and_a_repository_by_its_revision(tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    assert weights_prefetch.folder(plan_of(str(tmp_path)), {}) == tmp_path
    repository = tmp_path / "models--owner--name"
    (repository / "snapshots/c0ffee").mkdir(parents=True)
    assert weights_prefetch.folder(plan_of("owner/name"), environ) is None
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("c0ffee\n")
    assert weights_prefetch.folder(plan_of("owner/name"), environ) == repository / "snapshots/c0ffee"
    assert weights_prefetch.folder(plan_of("owner/name", revision="c0ffee"), environ) == repository / "snapshots/c0ffee"
    assert weights_prefetch.folder(plan_of("owner/name", revision="dev"), environ) is None
    assert weights_prefetch.folder(plan_of("owner/other"), environ) is None


def test_nothing_is_read_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "create_subprocess_exec", lambda *_, **__: pytest.fail("a process was started"))
    asyncio.run(weights_prefetch.read(None))


def test_what_was_read_is_logged_and_a_failure_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asyncio.run(weights_prefetch.read(tmp_path))
    assert caplog.messages[0].startswith(f"note: the weights were not prefetched: {tmp_path} has no *.safetensors")
    (tmp_path / "model.safetensors").write_bytes(bytes(1 << 20))
    asyncio.run(weights_prefetch.read(tmp_path))
    assert caplog.messages[1].startswith("weights prefetched: 0.0 GB in ")


def test_it_ends_with_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, sys, time\nfrom pathlib import Path\n"
        "Path(sys.argv[1], 'pid.new').write_text(str(os.getpid()))\n"
        "os.rename(Path(sys.argv[1], 'pid.new'), Path(sys.argv[1], 'pid'))\ntime.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(prefetch, "__name__", "slow")

    async def begin_and_stop() -> None:
        task = asyncio.create_task(weights_prefetch.read(tmp_path))
        async with asyncio.timeout(30 * slowness()):
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        procfs.end_all(os.getpid())  # as VllmProcess.end does

    asyncio.run(begin_and_stop())
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()
