"""The watch for errors of the GPUs, over a stand-in for NVML and a kernel log that is a pipe."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsv4_serve.entrypoint.machine.gpu_states import GpuStates
from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.machine.nvml import Driver, Gpu
from dsv4_serve.entrypoint.machine.visible import VisibleGpus
from dsv4_serve.entrypoint.machine.xid_sources import KernelLog, NvmlEvents
from dsv4_serve.entrypoint.supervisor import xid_watch
from dsv4_serve.entrypoint.supervisor.xid_watch import XidWatch
from dsv4_serve.entrypoint.vllm_log.xid import UNKNOWN, Xid
from tests.support.patience import slowness

BUSES = {"0000:01:00", "0000:02:00"}


class Nvml:
    """Two of three GPUs report events, which a test puts into `events`."""

    nvmlEventTypeXidCriticalError = 8  # noqa: N815
    nvmlEventTypeDoubleBitEccError = 2  # noqa: N815
    nvmlEventTypeDramRetirementFailure = 2048  # noqa: N815

    class NVMLError(Exception):
        pass

    class NVMLError_Timeout(NVMLError):  # noqa: N801
        pass

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[int, int, int]] = queue.Queue()
        self.registered: list[tuple[int, int]] = []
        self.fails = self.shut = False

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fails:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut = True

    def nvmlEventSetCreate(self) -> str:  # noqa: N802
        return "set"

    def nvmlEventSetFree(self, _set: str) -> None:  # noqa: N802
        return

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetSupportedEventTypes(self, device: int) -> int:  # noqa: N802
        if device == 1:
            raise self.NVMLError("Not Supported")
        return 2 | 4 | 8

    def nvmlDeviceRegisterEvents(self, device: int, kinds: int, _set: str) -> None:  # noqa: N802
        self.registered.append((device, kinds))

    def nvmlDeviceGetPciInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        if device == 9:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(busId=b"00000000:0%d:00.0" % (device + 1))

    def nvmlEventSetWait(self, _set: str, milliseconds: int) -> SimpleNamespace:  # noqa: N802
        try:
            device, kind, number = self.events.get(timeout=milliseconds / 1000)
        except queue.Empty:
            raise self.NVMLError_Timeout from None
        if kind < 0:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(device=device, eventType=kind, eventData=number)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    monkeypatch.setattr(xid_watch, "STEP", 0.01)
    return Nvml()


@pytest.fixture
def kernel() -> Iterator[tuple[KernelLog, int]]:
    """A kernel log, and where its records are written; a pipe gives one record a read if they come one by one."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    log = KernelLog.__new__(KernelLog)
    log._file = ours
    yield log, theirs
    os.close(theirs)


def no_kernel() -> KernelLog:
    raise PermissionError


def watching(nvml: Nvml, kernel: KernelLog | None = None, note: Callable[[Xid], None] = lambda _: None) -> XidWatch:
    def events(buses: Collection[str]) -> NvmlEvents:
        return NvmlEvents(buses, nvml)

    return XidWatch(BUSES, events, (lambda: kernel) if kernel else no_kernel, note=note)


def run(watch: XidWatch, until: int) -> None:
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 20 * slowness()
    while len(watch.found) < until and time.monotonic() < limit:
        time.sleep(0.005)
    watch.stop()
    thread.join(20 * slowness())
    assert not thread.is_alive()


def test_events_of_the_gpus_in_use_are_noted_and_logged_once(nvml: Nvml, caplog: pytest.LogCaptureFixture) -> None:
    for event in ((0, 8, 45), (1, 4, 99), (1, 8, 79), (1, 8, 79), (2, 8, 31)):
        nvml.events.put(event)
    watch = watching(nvml)
    run(watch, 2)
    assert watch.found == (Xid(79, "0000:02:00"), Xid(45, "0000:01:00"))
    assert nvml.registered == [(0, 2 | 8), (1, 8)]
    assert nvml.shut
    assert [message for message in caplog.messages if "Xid 79" in message] == [
        "the driver reports Xid 79 on GPU 0000:02:00 (the GPU has fallen off the bus)."
    ]


def test_events_without_a_number_stand_for_one_and_do_not_count_twice(nvml: Nvml) -> None:
    for event in ((0, 2, 7), (0, 8, 48), (1, 2048, 0)):
        nvml.events.put(event)
    noted: list[tuple[Xid, bool]] = []
    watch = watching(nvml, note=lambda found: noted.append((found, found.state)))
    run(watch, 2)
    assert noted == [(Xid(48, "0000:01:00"), True), (Xid(64, "0000:02:00"), True)]


def test_what_becomes_worse_in_the_states_is_noted(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xid_watch, "LOOK", 0.01)
    lost, other = Xid(79, "0000:01:00", state=True), Xid(64, "0000:03:00", state=True)
    states = SimpleNamespace(worse=lambda: iter([lost, other]))
    watch = XidWatch(BUSES, NvmlEvents, no_kernel, lambda buses: states if buses == BUSES else None)  # type: ignore[arg-type,return-value]
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    limit = time.monotonic() + 20 * slowness()
    while not watch.found and time.monotonic() < limit:
        time.sleep(0.005)
    watch.stop()
    thread.join(20 * slowness())
    assert watch.found == (lost,)


def test_states_that_cannot_be_read_end_nothing(nvml: Nvml) -> None:
    def fails(_: Collection[str]) -> GpuStates:
        raise OSError("Driver Not Loaded")

    XidWatch(BUSES, NvmlEvents, no_kernel, fails).look()


def test_a_gpu_that_nvml_cannot_name_any_more_still_counts(nvml: Nvml) -> None:
    nvml.events.put((9, 8, 79))
    watch = watching(nvml)
    run(watch, 1)
    assert watch.found == (Xid(79, UNKNOWN),)


def test_the_kernel_log_is_read_where_nvml_answers_nothing(nvml: Nvml, kernel) -> None:
    nvml.fails = True
    log, theirs = kernel
    os.write(theirs, b"4,1,2,-;NVRM: Xid (PCI:0000:01:00): 119, Timeout waiting for RPC from GSP0!\n SUBSYSTEM=pci\n")
    watch = watching(nvml, log)
    run(watch, 1)
    assert watch.found == (Xid(119, "0000:01:00"),)
    assert watch.available


def test_nvml_that_fails_later_leaves_the_kernel_log(nvml: Nvml, kernel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log, theirs = kernel
    nvml.events.put((0, -1, 0))
    watch = watching(nvml, log)
    os.write(theirs, b"NVRM: Xid (PCI:0000:02:00): 74\n")
    run(watch, 1)
    assert watch.found == (Xid(74, "0000:02:00"),)
    assert "note: NVML reports no more errors of the GPUs (GPU is lost)." in caplog.messages


def test_without_a_source_it_ends_at_once_and_an_exit_does_not_wait(nvml: Nvml) -> None:
    nvml.fails = True
    watch = watching(nvml)
    watch.run()
    began = time.monotonic()
    asyncio.run(watch.settled())
    assert time.monotonic() - began < xid_watch.LATE
    assert not watch.available


def test_an_exit_waits_a_moment_for_the_driver_unless_it_has_spoken(nvml: Nvml) -> None:
    watch = watching(nvml)
    watch.available = True
    began = time.monotonic()
    asyncio.run(watch.settled())
    assert time.monotonic() - began >= xid_watch.LATE


def test_it_watches_the_gpus_that_vllm_sees_in_two_threads_and_none_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))
    gpus = tuple(Gpu(index, bus=f"00000000:0{index}:00.0") for index in range(4))
    machine = Machine(Driver(gpus=gpus), VisibleGpus((0, 1, 2, 3)))
    watch = XidWatch.of(machine, {"CUDA_VISIBLE_DEVICES": "1,2"})
    assert watch._buses == {"0000:01:00", "0000:02:00"}
    watch.start()
    XidWatch.of(None, {}).start()
    XidWatch.of(Machine(), {}).start()
    assert started == ["xid", "gpu-states"]


def test_the_end_of_a_file_is_the_end_of_the_kernel_log(tmp_path: Path) -> None:
    file = tmp_path / "kmsg"
    file.write_text("NVRM: Xid (PCI:0000:01:00): 79\n")
    log = KernelLog(file)
    assert list(log.read()) == []  # what came before the start does not count
    with file.open("a") as more:
        more.write("NVRM: Xid (PCI:0000:01:00): 31\n")
    assert list(log.read()) == [Xid(31, "0000:01:00")]
    log.close()
    with pytest.raises(OSError, match="No such file"):
        KernelLog(tmp_path / "none")


def test_the_real_sources_of_a_sound_machine_report_nothing_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """pynvml with or without a driver, and /dev/kmsg where it can be read."""
    monkeypatch.setattr(xid_watch, "STEP", 0.01)
    monkeypatch.setattr(xid_watch, "LOOK", 0.01)
    watch = XidWatch({"ffff:ff:00"})
    threads = [threading.Thread(target=work, daemon=True) for work in (watch.run, watch.look)]
    for thread in threads:
        thread.start()
    limit = time.monotonic() + 20 * slowness()
    while threads[0].is_alive() and not watch.available and time.monotonic() < limit:
        time.sleep(0.005)
    assert watch.available or not threads[0].is_alive()  # it ends where nothing can be read
    watch.stop()
    for thread in threads:
        thread.join(20 * slowness())
    assert not any(thread.is_alive() for thread in threads)
    assert watch.found == ()
