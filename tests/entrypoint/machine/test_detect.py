"""Which hardware the GPUs are. What NVML would say is written down here: no machine of CI has a driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine import detect
from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.machine.nvml import Driver, Gpu
from dsv4_serve.entrypoint.machine.visible import visible_gpus
from tools import record_host

MAX_Q = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"


FOUR = Driver("580.126.09", gpus=tuple(Gpu(i, f"GPU-{i}aaa-bbbb", MAX_Q) for i in range(4)))


def names(driver: Driver, visible: str | None = None) -> list[str]:
    return detect.gpu_names(Machine(driver, visible_gpus(driver, visible)))


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 4), ("0,1", 2), ("GPU-2aaa", 1), ("3", 1), ("0,9,1", 1), (" 0 , 1 ", 2)],
)
def test_cuda_visible_devices_decides_what_counts(visible: str | None, count: int) -> None:
    assert names(FOUR, visible) == [MAX_Q] * count


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_without_a_visible_gpu_the_message_says_how_to_name_the_hardware(visible: str) -> None:
    with pytest.raises(ConfigError, match="--hardware"):
        names(FOUR, visible)


def test_without_a_driver_the_message_says_how_to_name_the_hardware() -> None:
    with pytest.raises(detect.NoGpu, match="driver.*--hardware"):
        names(Driver(error="Driver Not Loaded"))


def test_a_gpu_that_cannot_be_read_is_left_out_and_without_others_reported() -> None:
    lost = Gpu(1, error="GPU is lost")
    assert names(Driver(gpus=(FOUR.gpus[0], lost))) == [MAX_Q]
    with pytest.raises(detect.NoGpu, match="GPU is lost"):
        names(Driver(gpus=(lost,)))


def test_every_hardware_but_the_cpu_is_found_by_its_name() -> None:
    catalog = Catalog([])
    for hardware in catalog.every_hardware():
        for name in hardware.own.nvml_names:
            assert detect.match([name], catalog.every_hardware()).name == hardware.name
        assert hardware.own.nvml_names or hardware.name == "cpu"


@pytest.mark.parametrize("gpus", [["NVIDIA GeForce RTX 4090"], ["NVIDIA H200", MAX_Q]])
def test_unknown_or_mixed_gpus_are_refused(gpus: list[str]) -> None:
    with pytest.raises(ConfigError, match="--hardware"):
        detect.match(gpus, Catalog([]).every_hardware())


def test_hardware_of_ones_own_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "mine.toml").write_text('nvml-names = ["NVIDIA Mine"]\n')
    assert detect.match(["NVIDIA Mine"], Catalog([tmp_path]).every_hardware()).name == "mine"


@pytest.mark.parametrize(("visible", "gpus"), [(None, (0, 1, 2, 3)), ("2,3", (2, 3)), ("3,2", (3, 2))])
def test_what_is_found_tells_how_many_gpus_and_how_they_are_connected(
    visible: str | None, gpus: tuple[int, ...]
) -> None:
    recorded = record_host.load((Path(__file__).parent / "recorded/rtx-pro-6000-x4.json").read_text()).machine
    machine = recorded.seen_with({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    hardware = detect.hardware_of(machine, Catalog([]))
    assert hardware.hardware.startswith("rtx-pro-6000")
    assert (hardware.count, hardware.topology and hardware.topology.gpus) == (len(gpus), gpus)
