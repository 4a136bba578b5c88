"""
A stand-in for the module pynvml, put on PYTHONPATH under that name: two H200 that NVLink connects.

Each nvmlSystemGetDriverVersion, which a reading of the machine asks once, appends a line to the file that NVML_CALLS
names. The file that NVML_EVENTS names holds events, `GPU KIND NUMBER` a line. What is not written here is not supported.
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_NVLINK_MAX_LINKS = 18
NVML_ERROR_GPU_IS_LOST = 15
nvmlEventTypeXidCriticalError = 8  # noqa: N816
NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
nvmlMemory_v2 = 0x02000028  # noqa: N816
GIB = 1 << 30


class NVMLError(Exception):
    """NVML's answer for what it does not support."""


class NVMLError_Timeout(NVMLError):  # noqa: N801
    """NVML's answer when no event came in time."""


class c_nvmlGpuFabricInfoV_t(ctypes.Structure):  # noqa: N801
    _fields_ = ()


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    with Path(os.environ["NVML_CALLS"]).open("a") as file:
        file.write("read\n")
    return "580.159.04"


def _event(_set: object, milliseconds: int) -> SimpleNamespace:
    until, file = time.monotonic() + milliseconds / 1000, Path(os.environ.get("NVML_EVENTS", "/none"))
    while time.monotonic() < until:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) > _told[0]:
            device, kind, number = map(int, lines[_told[0]].split())
            _told[0] += 1
            return SimpleNamespace(device=device, eventType=kind, eventData=number)
        time.sleep(0.05)
    raise NVMLError_Timeout


_told = [0]


def __getattr__(name: str) -> Any:
    if not name.startswith("nvml") or name.startswith("nvmlEventType"):
        raise AttributeError(name)
    answers: dict[str, Any] = {
        "nvmlShutdown": None,
        "nvmlInit": None,
        "nvmlSystemGetCudaDriverVersion": 13000,
        "nvmlDeviceGetCount": 2,
        "nvmlEventSetCreate": "set",
        "nvmlEventSetFree": None,
        "nvmlEventSetWait": _event,
        "nvmlDeviceRegisterEvents": None,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda *_: SimpleNamespace(total=141 * GIB, reserved=GIB, free=140 * GIB),
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=b"00000000:0%d:00.0" % handle),
        "nvmlDeviceGetCudaComputeCapability": (9, 0),
        "nvmlDeviceGetP2PStatus": 0,
        "nvmlDeviceGetTopologyCommonAncestor": 40,
    }

    def answer(*arguments: Any) -> Any:
        if name not in answers:
            raise NVMLError("Not Supported")
        given = answers[name]
        return given(*arguments) if callable(given) else given

    return answer
