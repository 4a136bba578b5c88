"""Reading the GPUs. A stand-in plays NVML: no machine of CI has a driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsv4_serve.entrypoint import nvml
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.sheets import Library

MAX_Q = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"


class Recorded:
    """nvidia-ml-py's functions over a list of (UUID, name), or an error at start."""

    NVMLError = RuntimeError

    def __init__(self, gpus: list[tuple[str, str]], error: str = "") -> None:
        self.gpus, self.error = gpus, error

    def nvmlInit(self) -> None:  # noqa: N802
        if self.error:
            raise RuntimeError(self.error)

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return self.gpus[handle][0]

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.gpus[handle][1]


FOUR = Recorded([(f"GPU-{i}aaa-bbbb", MAX_Q) for i in range(4)])


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 4), ("0,1", 2), ("GPU-2aaa", 1), ("3", 1), ("0,9,1", 1), (" 0 , 1 ", 2)],
)
def test_cuda_visible_devices_decides_what_counts(visible: str | None, count: int) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert nvml.gpu_names(environ, FOUR) == [MAX_Q] * count


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_no_visible_gpu_is_said_with_the_way_to_choose_by_hand(visible: str) -> None:
    with pytest.raises(ConfigError, match="--hardware"):
        nvml.gpu_names({"CUDA_VISIBLE_DEVICES": visible}, FOUR)


def test_no_driver_is_said_with_the_way_to_choose_by_hand() -> None:
    with pytest.raises(ConfigError, match="driver.*--hardware"):
        nvml.gpu_names({}, Recorded([], "Driver Not Loaded"))


def test_every_hardware_but_the_cpu_is_found_by_its_name() -> None:
    library = Library([])
    for sheet in library.every_hardware():
        for name in sheet.own.nvml_names:
            assert nvml.match([name], library.every_hardware()).name == sheet.name
        assert sheet.own.nvml_names or sheet.name == "cpu"


@pytest.mark.parametrize("names", [["NVIDIA GeForce RTX 4090"], ["NVIDIA H200", MAX_Q]])
def test_unknown_or_mixed_gpus_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="--hardware"):
        nvml.match(names, Library([]).every_hardware())


def test_hardware_of_ones_own_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "mine.toml").write_text('nvml-names = ["NVIDIA Mine"]\n')
    assert nvml.match(["NVIDIA Mine"], Library([tmp_path]).every_hardware()).name == "mine"
