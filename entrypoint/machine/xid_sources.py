"""
Where the driver's errors (Xid) can be read while vLLM runs: events of NVML, and the kernel log.

NVML needs no privilege and works in containers. /dev/kmsg needs root or CAP_SYSLOG on most hosts, and containers seldom
have it; it is read where it can be.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ..vllm_log import xid
from ..vllm_log.xid import UNKNOWN, Xid, bus, in_kernel_log

_RECORD = 8192  # bytes that one record of /dev/kmsg has at most
_MOST = 20_000  # records that are read at once
_STATES = {
    "nvmlEventTypeDoubleBitEccError": xid.ECC,
    "nvmlEventTypeDramRetirementEvent": xid.ROW_PENDING,
    "nvmlEventTypeDramRetirementFailure": xid.ROW_FAILED,
    "nvmlEventTypeFatalPoisonError": xid.NOT_CONTAINED,
    "nvmlEventTypeGpuUnavailableError": xid.RECOVERY,
}
"""Events that have no number, and the error that each stands for; older drivers do not have all of them."""


class NvmlEvents:
    """Errors of the GPUs at some PCI addresses, as events of NVML."""

    def __init__(self, buses: Collection[str], nvml: Any = None) -> None:
        """Register for events; raise NVMLError or OSError where the driver has none. `nvml` stands in for pynvml."""
        self._nvml = nvml or importlib.import_module("pynvml")
        self._nvml.nvmlInit()
        self._set = self._nvml.nvmlEventSetCreate()
        self._xid = self._nvml.nvmlEventTypeXidCriticalError
        kinds = {getattr(self._nvml, name, 0): number for name, number in _STATES.items()}
        self._kinds = {kind: number for kind, number in kinds.items() if kind}
        registered = 0
        for index in range(self._nvml.nvmlDeviceGetCount()):
            try:
                device = self._nvml.nvmlDeviceGetHandleByIndex(index)
                if self._bus(device) in buses:
                    self._nvml.nvmlDeviceRegisterEvents(device, self._supported(device), self._set)
                    registered += 1
            except self._nvml.NVMLError:  # lost, or without such events
                continue
        if not registered:
            self.close()
            raise OSError("no GPU reports events")

    def wait(self, seconds: float) -> Xid | None:
        """Wait for the next error; None when there was none."""
        try:
            event = self._nvml.nvmlEventSetWait(self._set, int(seconds * 1000))
        except self._nvml.NVMLError_Timeout:
            return None
        if event.eventType == self._xid:
            return Xid(int(event.eventData), self._bus(event.device))
        number = self._kinds.get(event.eventType)
        return Xid(number, self._bus(event.device), state=True) if number else None

    def close(self) -> None:
        """Give NVML back."""
        self._nvml.nvmlEventSetFree(self._set)
        self._nvml.nvmlShutdown()

    def _supported(self, device: Any) -> int:
        """Return the events that a GPU has: NVML refuses all of them for one that it has not."""
        try:
            return int(self._xid | sum(self._kinds) & self._nvml.nvmlDeviceGetSupportedEventTypes(device))
        except self._nvml.NVMLError:
            return int(self._xid)

    def _bus(self, device: Any) -> str:
        try:
            address = self._nvml.nvmlDeviceGetPciInfo(device).busId
        except self._nvml.NVMLError:  # a GPU that has fallen off the bus
            return UNKNOWN
        return bus(address.decode() if isinstance(address, bytes) else address)


class KernelLog:
    """Errors in the kernel log from now on."""

    def __init__(self, path: Path = Path("/dev/kmsg")) -> None:
        """Open it at its end; raise OSError where it cannot be read."""
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._file, 0, os.SEEK_END)

    def read(self) -> Iterator[Xid]:
        """Yield the errors since the last call; never waits."""
        for _ in range(_MOST):
            try:
                record = os.read(self._file, _RECORD)
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            except OSError:  # BlockingIOError: there are no more
                return
            if not record:
                return
            for line in record.decode(errors="replace").splitlines():
                if xid := in_kernel_log(line):
                    yield xid

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


def wait_for(seconds: float, events: NvmlEvents | None) -> Xid | None:
    """Wait for an event, or just so long where there are none."""
    if events is not None:
        return events.wait(seconds)
    time.sleep(seconds)
    return None
