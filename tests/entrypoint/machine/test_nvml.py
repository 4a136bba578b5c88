"""Reading NVML: a stand-in plays the library, because no machine of CI has a driver."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from dsv4_serve.entrypoint.machine import nvml
from dsv4_serve.entrypoint.machine.nvml import GpuProcess, MigInstance, Pair, read_driver


class Refused(Exception):
    """NVML's answer for what it does not support."""


class Library:
    """Two GPUs as NVML tells of them; whatever is not given here is not supported."""

    NVMLError = Refused
    NVML_NVLINK_MAX_LINKS = 36
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    nvmlMemory_v2 = 0x02000028  # noqa: N815
    c_nvmlGpuFabricInfoV_t = pynvml.c_nvmlGpuFabricInfoV_t  # noqa: N815

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlSystemGetDriverVersion": "580.159.04",
            "nvmlSystemGetCudaDriverVersion": 13000,
            "nvmlDeviceGetCount": 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetMemoryInfo": lambda *_args: SimpleNamespace(total=100, reserved=5, free=60),
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
            "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=b"00000000:0%d:00.0" % handle),
        } | answers

    def __getattr__(self, name: str) -> Any:
        def answer(*args: Any) -> Any:
            if name not in self.answers:
                raise Refused("Not Supported")
            given = self.answers[name]
            return given(*args) if callable(given) else given

        return answer


def links(_handle: int, link: int) -> int:
    if link >= 18:
        raise Refused("Invalid Argument")
    return int(link != 3)


def fabric(_handle: int, reference: Any) -> int:
    reference._obj.state = 2
    return 0


def test_what_the_driver_answers_is_kept() -> None:
    driver = read_driver(
        Library(
            nvmlDeviceGetCudaComputeCapability=(9, 0),
            nvmlDeviceGetComputeRunningProcesses_v3=[SimpleNamespace(pid=7, usedGpuMemory=40)],
            nvmlDeviceGetMigMode=[1, 1],
            nvmlDeviceGetPersistenceMode=0,
            nvmlDeviceGetRemappedRows=(0, 1, 1, 1),
            nvmlDeviceGetComputeMode=2,
            nvmlDeviceGetTotalEccErrors=4,
            nvmlDeviceGetNvLinkState=links,
            nvmlDeviceGetGpuFabricInfoV=fabric,
            nvmlDeviceGetFieldValues=[SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=1))],
            nvmlDeviceGetTopologyCommonAncestor=40,
            nvmlDeviceGetP2PStatus=lambda _a, _b, kind: {0: 0, 1: 4, 2: 0}[kind],
        )
    )
    assert (driver.version, driver.cuda, driver.error) == ("580.159.04", 13000, "")
    gpu = driver.gpu(1)
    assert (gpu.name, gpu.uuid, gpu.bus, gpu.capability) == ("NVIDIA H200", "GPU-1", "00000000:01:00.0", "9.0")
    assert (gpu.total, gpu.reserved, gpu.free, gpu.processes) == (100, 5, 60, (GpuProcess(7, 40),))
    assert (gpu.mig, gpu.persistence, gpu.compute_mode, gpu.fabric) == (True, False, "prohibited", "in progress")
    assert (gpu.remap_failed, gpu.uncorrected, gpu.recovery) == (True, 4, "reset")
    assert (gpu.nvlinks, gpu.nvlinks_down) == (17, 1)
    assert driver.pairs == (Pair(0, 1, "NODE", True, "ok", "disabled by registry"),)


def test_what_the_driver_does_not_answer_is_left_open() -> None:
    driver = read_driver(Library())
    gpu = driver.gpu(0)
    assert (gpu.capability, gpu.mig, gpu.fabric, gpu.nvlinks, gpu.width, gpu.recovery) == (
        "",
        None,
        None,
        None,
        None,
        None,
    )
    assert driver.pairs == (Pair(0, 1),)


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    def memory(handle: int, _version: int = 0) -> Any:
        if handle == 1:
            raise Refused("GPU is lost")
        return SimpleNamespace(total=100, free=60)

    driver = read_driver(Library(nvmlDeviceGetMemoryInfo=memory))
    assert driver.gpu(0).error == ""
    assert driver.gpu(1).error == "GPU is lost"
    assert driver.pairs == ()


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlSystemGetDriverVersion"])
def test_a_driver_that_does_not_answer_is_a_fact_and_no_error(call: str) -> None:
    def refuse() -> None:
        raise Refused("Driver Not Loaded")

    assert read_driver(Library(**{call: refuse})).error == "Driver Not Loaded"


def test_the_real_library_has_every_name_that_is_used() -> None:
    names: set[str] = set()

    class Asking(Library):
        def __getattr__(self, name: str) -> Any:
            names.add(name)
            return super().__getattr__(name)

    read_driver(Asking())
    assert len(names) > 15
    assert not {name for name in names if not hasattr(pynvml, name) and name != "answers"}


MEMINFO = "MemTotal:       127600000 kB\nMemFree:         1000000 kB\nMemAvailable:   118000000 kB\nHugePages_Total:       0\n"


def test_memory_that_cpu_and_gpu_share_is_read_from_the_system_and_the_gpu_is_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def memory(_handle: int, _version: int = 0) -> Any:
        raise Refused("Not Supported")

    monkeypatch.setattr(nvml, "MEMINFO", tmp_path / "meminfo")
    nvml.MEMINFO.write_text(MEMINFO)
    gpu = read_driver(Library(nvmlDeviceGetMemoryInfo=memory, nvmlDeviceGetName="NVIDIA GB10")).gpu(0)
    assert (gpu.error, gpu.unified) == ("", True)
    assert (gpu.total, gpu.reserved, gpu.free) == (127_600_000 * 1024, 0, 118_000_000 * 1024)
    assert not read_driver(Library()).gpu(0).unified


def test_the_instances_of_a_split_gpu_are_read_with_their_memory() -> None:
    sizes = {"a": 20, "b": 40}

    def instance(_handle: int, index: int) -> str:
        if index >= len(sizes):
            raise Refused("Not Found")
        return [*sizes][index]

    library = Library(
        nvmlDeviceGetMigMode=(1, 1),
        nvmlDeviceGetMaxMigDeviceCount=7,
        nvmlDeviceGetMigDeviceHandleByIndex=instance,
        nvmlDeviceGetName=lambda handle: f"NVIDIA H100 MIG {handle}g.20gb" if handle in sizes else "NVIDIA H100",
        nvmlDeviceGetUUID=lambda handle: f"MIG-{handle}" if handle in sizes else f"GPU-{handle}",
        nvmlDeviceGetMemoryInfo=lambda handle, *_v: SimpleNamespace(total=sizes.get(handle, 80), reserved=0, free=1),
    )
    first, _ = read_driver(library).gpus
    assert first.instances == (MigInstance("MIG-a", "ag.20gb", 20), MigInstance("MIG-b", "bg.20gb", 40))
    assert read_driver(Library()).gpus[0].instances == ()
