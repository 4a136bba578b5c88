"""What has become worse in the state of GPUs since the start, as NVML reports it: memory, recovery, bus."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ..vllm_log import xid
from ..vllm_log.xid import Xid
from .nvml import recovery_action


@dataclass(frozen=True)
class GpuState:
    """One reading of one GPU; what it does not report is 0 or empty."""

    lost: bool = False
    row_pending: bool = False
    row_failed: bool = False
    uncorrected: int = 0
    recovery: str = ""

    def since(self, before: GpuState, bus: str) -> Iterator[Xid]:
        """Yield what is worse than before, under the number of the error that would be reported of it."""
        worse = {
            xid.LOST: self.lost and not before.lost,
            xid.ROW_FAILED: self.row_failed and not before.row_failed,
            xid.ROW_PENDING: self.row_pending and not before.row_pending,
            xid.ECC: self.uncorrected > before.uncorrected,
            xid.RECOVERY: self.recovery not in ("", "none", before.recovery),
        }
        yield from (Xid(number, bus, state=True) for number, is_so in worse.items() if is_so)


class GpuStates:
    """The GPUs at some PCI addresses. A call may block for ever once a GPU is lost."""

    def __init__(self, buses: Collection[str], nvml: Any = None) -> None:
        """Read the state that counts as sound; raise NVMLError where the driver does not answer."""
        self._nvml = nvml or importlib.import_module("pynvml")
        self._nvml.nvmlInit()
        self._handles: dict[str, Any] = {}
        for index in range(self._nvml.nvmlDeviceGetCount()):
            handle = self._query(self._nvml.nvmlDeviceGetHandleByIndex, index)
            info = None if handle is None else self._query(self._nvml.nvmlDeviceGetPciInfo, handle)
            if info is not None and (bus := xid.bus(_text(info.busId))) in buses:
                self._handles[bus] = handle
        self.first = {bus: self._read(handle) for bus, handle in self._handles.items()}
        self._before = dict(self.first)

    def worse(self) -> Iterator[Xid]:
        """Read all states; yield what has become worse since the last reading."""
        for bus, handle in self._handles.items():
            now, before = self._read(handle), self._before[bus]
            self._before[bus] = before if now.lost and before.lost else now
            yield from now.since(before, bus)

    def _read(self, handle: Any) -> GpuState:
        lost: list[bool] = []
        ask = self._asking(lost)
        rows = ask(self._nvml.nvmlDeviceGetRemappedRows, handle)
        uncorrected = ask(self._nvml.nvmlDeviceGetTotalEccErrors, handle, 1, 0)  # since the driver was loaded
        recovery = recovery_action(self._nvml, ask, handle)
        pending, failed = (bool(rows[2]), bool(rows[3])) if rows else (False, False)
        return GpuState(bool(lost), pending, failed, uncorrected or 0, recovery or "")

    def _asking(self, lost: list[bool]) -> Callable[..., Any]:
        """Return a function that asks NVML, and notes in `lost` that the GPU is."""

        def ask(function: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return function(*arguments)
            except self._nvml.NVMLError as error:
                if getattr(error, "value", None) == self._nvml.NVML_ERROR_GPU_IS_LOST:
                    lost.append(True)
                return None

        return ask

    def _query(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._asking([])(function, *arguments)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
