"""What NVML says of a GPU that fails while it is in use, over a stand-in for NVML."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint.machine.gpu_states import GpuStates
from dsv4_serve.entrypoint.vllm_log.xid import Xid

GPU, OTHER = "0000:01:00", "0000:02:00"


class Nvml:
    """Three GPUs, the last of which is another's; `rows`, `errors` and `action` are those of the first one."""

    NVML_ERROR_GPU_IS_LOST = 15
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    def __init__(self) -> None:
        self.rows, self.errors, self.action, self.lost, self.supported = (0, 0, 0, 0), 0, 0, False, True

    def nvmlInit(self) -> None:  # noqa: N802
        return

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 4

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == 3:
            raise self.NVMLError(self.NVML_ERROR_GPU_IS_LOST)
        return index

    def nvmlDeviceGetPciInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(busId=b"00000000:0%d:00.0" % (device + 1))

    def of(self, device: int, value: Any) -> Any:
        if device == 0 and self.lost:
            raise self.NVMLError(self.NVML_ERROR_GPU_IS_LOST)
        if not self.supported:
            raise self.NVMLError(3)
        return value if device == 0 else type(value)()

    def nvmlDeviceGetRemappedRows(self, device: int) -> tuple[int, ...]:  # noqa: N802
        return self.of(device, self.rows)

    def nvmlDeviceGetTotalEccErrors(self, device: int, kind: int, counter: int) -> int:  # noqa: N802
        assert (kind, counter) == (1, 0)
        return self.of(device, self.errors)

    def nvmlDeviceGetFieldValues(self, device: int, _fields: list[int]) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=self.of(device, self.action)))]


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"rows": (0, 1, 1, 0)}, 63),
        ({"rows": (0, 1, 0, 1)}, 64),
        ({"errors": 1}, 48),
        ({"action": 1}, 154),
        ({"lost": True}, 79),
    ],
)
def test_what_becomes_worse_is_told_once(changes: dict[str, Any], number: int) -> None:
    nvml = Nvml()
    states = GpuStates({GPU, OTHER}, nvml)
    assert list(states.worse()) == []
    vars(nvml).update(changes)
    (found,) = states.worse()
    assert (found, found.state) == (Xid(number, GPU), True)
    assert list(states.worse()) == []


def test_what_was_there_at_the_start_is_the_doctors_to_judge() -> None:
    nvml = Nvml()
    nvml.rows, nvml.errors, nvml.action = (0, 2, 1, 1), 5, 2
    states = GpuStates({GPU}, nvml)
    assert list(states.worse()) == []
    nvml.errors = 6
    assert list(states.worse()) == [Xid(48, GPU)]


def test_several_changes_are_all_told() -> None:
    nvml = Nvml()
    states = GpuStates({GPU}, nvml)
    nvml.rows, nvml.errors, nvml.action = (0, 2, 1, 1), 5, 2
    assert {found.number for found in states.worse()} == {48, 63, 64, 154}


def test_a_gpu_that_reports_none_of_it_and_one_of_others_say_nothing() -> None:
    nvml = Nvml()
    nvml.supported = False
    states = GpuStates({GPU}, nvml)
    assert list(states.worse()) == []
    elsewhere = GpuStates({"0000:09:00"}, nvml)
    nvml.lost = True
    assert list(elsewhere.worse()) == []
