"""The file of KV offloading in /dev/shm is removed however the engine ends, and is on record while it runs."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dsv4_serve.entrypoint.supervisor import leftovers
from dsv4_serve.entrypoint.supervisor.vllm_process import VllmProcess
from dsv4_serve.entrypoint.vllm_log import offload_region
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from tests.support.patience import slowness

ENGINE = """
import os, signal, sys
path = sys.argv[1]
open(path, "wb").write(bytes(4096))
print(f"(Worker_TP0 pid=7) INFO 11-30 18:36:11 [shared_offload_region.py:148] Created mmap file {path} (68.72 GB)", flush=True)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""
NAMES = """
import sys
print(f"INFO 11-30 18:36:11 [shared_offload_region.py:148] Created mmap file {sys.argv[1]} (68.72 GB)", flush=True)
"""


@pytest.fixture
def region() -> Iterator[Path]:
    path = Path(f"/dev/shm/vllm_offload_{uuid4()}_dp0.mmap")
    yield path
    path.unlink(missing_ok=True)


async def started(region: Path, how: str) -> VllmProcess:
    argv = [sys.executable, "-c", ENGINE, str(region), how]
    return await VllmProcess.start(argv, os.environ, lambda _: None)


async def until_noted(process: VllmProcess, region: Path) -> None:
    async with asyncio.timeout(10 * slowness()):
        while region not in process.shared_memory():
            await process.nap(1.0)


def test_an_engine_that_is_killed_before_anyone_looks_at_it_leaves_none(region: Path) -> None:
    async def run() -> None:
        process = await started(region, "dies")
        assert await process.wait() == -9
        await process.finish_log()
        assert region.exists()
        await process.end(0.0, asyncio.Event())

    asyncio.run(run())
    assert not region.exists()


def test_a_line_that_names_the_file_of_another_replica_removes_none(region: Path) -> None:
    async def run() -> None:
        process = await VllmProcess.start([sys.executable, "-c", NAMES, str(region)], os.environ, lambda _: None)
        await process.wait()
        await process.end(0.0, asyncio.Event())
        assert region in process.shared_memory()

    region.write_bytes(bytes(4096))
    with region.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        asyncio.run(run())
        assert region.exists()


def test_a_link_is_removed_and_not_what_it_names(region: Path, tmp_path: Path) -> None:
    async def run() -> None:
        process = await VllmProcess.start([sys.executable, "-c", NAMES, str(region)], os.environ, lambda _: None)
        await process.wait()
        await process.end(0.0, asyncio.Event())

    kept = tmp_path / "kept"
    kept.write_text("kept")
    region.symlink_to(kept)
    asyncio.run(run())
    assert kept.read_text() == "kept"
    assert not region.is_symlink()


def test_it_is_on_record_at_once_for_the_start_after_a_killed_supervisor(region: Path, tmp_path: Path) -> None:
    async def run() -> None:
        process = await started(region, "waits")
        recording = asyncio.create_task(leftovers.record(tmp_path, process.folder, process.shared_memory, process.nap))
        file = tmp_path / leftovers.FILE
        async with asyncio.timeout(min(10 * slowness(), 0.9 * leftovers.EVERY)):
            while not file.exists() or str(region) not in json.loads(file.read_text())["shared"]:
                await asyncio.sleep(0.05)
        recording.cancel()
        os.kill(process.pid, 9)
        await process.wait()

    asyncio.run(run())
    assert region.exists()
    leftovers.end(tmp_path)
    assert not region.exists()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("logger.py:1", "Created mmap file /dev/shm/vllm_offload_a.mmap (1.00 GB)"),
        ("shared_offload_region.py:1", "Created mmap file /dev/shm/other.mmap (1.00 GB)"),
        ("shared_offload_region.py:1", "Created mmap file /dev/shm/vllm_offload_/../../a.mmap (1.00 GB)"),
        ("shared_offload_region.py:1", "Opened existing mmap file /dev/shm/vllm_offload_a.mmap"),
        ("", "prompt: Created mmap file /dev/shm/vllm_offload_a.mmap (1.00 GB)"),
    ],
)
def test_no_other_line_names_a_file_to_remove(source: str, text: str) -> None:
    assert offload_region.created(LogLine(text, source=source)) is None


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_vllm_names_its_file_like_that_and_leaves_it_when_killed_with_tiers(as_json: bool, tmp_path: Path) -> None:
    """`barrier` is what the connector without tiers adds: then the file has no name any more when it is filled."""
    script = (
        "import os, sys\n"
        "from vllm.logger import _configure_vllm_root_logger\n"
        "_configure_vllm_root_logger()\n"
        "from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion\n"
        "barrier = (lambda: None) if sys.argv[2] == 'barrier' else None\n"
        "SharedOffloadRegion(sys.argv[1], 2, 0, 4096, 4096, barrier=barrier)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    settings = dict(os.environ)
    if as_json:
        config = tmp_path / "logging.json"
        formatter = {"format": '{"name": "%(name)s", "levelname": "%(levelname)s", "message": "%(message)s"}'}
        handler = {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}
        logger = {"handlers": ["out"], "level": "INFO", "propagate": False}
        whole = {"version": 1, "formatters": {"json": formatter}, "handlers": {"out": handler}}
        config.write_text(json.dumps(whole | {"loggers": {"vllm": logger}}))
        settings["VLLM_LOGGING_CONFIG_PATH"] = str(config)
    for kind in ("tiers", "barrier"):
        path = Path(f"/dev/shm/vllm_offload_{(name := str(uuid4()))}.mmap")
        argv = [sys.executable, "-c", script, name, kind]
        done = subprocess.run(argv, env=settings, capture_output=True, text=True, check=False)
        left = path.exists()
        path.unlink(missing_ok=True)
        assert done.returncode == -9, done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        assert {found for line in lines if (found := offload_region.created(LogLine.parse(line)))} == {path}
        assert left == (kind == "tiers")
