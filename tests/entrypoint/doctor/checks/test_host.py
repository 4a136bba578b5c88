"""The host and its checks: faults are made for real where a test can, and replayed from recordings where it cannot."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.doctor import registry
from dsv4_serve.entrypoint.doctor.checks import gpu
from dsv4_serve.entrypoint.doctor.checks import limit as limit_checks
from dsv4_serve.entrypoint.machine import build_tools, host, machine, ports, vllm_packages
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.machine.host import Host, read_host
from dsv4_serve.entrypoint.machine.machine import Machine, ResourceLimits, read_machine
from dsv4_serve.entrypoint.machine.nvml import Driver, Gpu
from dsv4_serve.entrypoint.machine.ports import RequiredPort
from dsv4_serve.entrypoint.machine.requirements import HostRequirements, host_requirements
from dsv4_serve.entrypoint.machine.visible import VisibleGpus, visible_gpus
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.problem import Problem
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tests.support.checks import problems
from tests.support.patience import slowness
from tools import record_host

RECORDED = Path(__file__).parents[2] / "machine/recorded"
CHECKS = registry.GPUS + registry.HOST
GIB = 1 << 30
RTX = HostRequirements(capability="12.0", hardware="rtx-pro-6000", interconnect="pcie", env={"NCCL_P2P_DISABLE": "1"})

AS_NOBODY = """
import json, os, pynvml, resource, sys
from dsv4_serve.entrypoint.machine.visible import VisibleGpus, visible_gpus
from dsv4_serve.entrypoint.machine.requirements import HostRequirements
from dsv4_serve.entrypoint.doctor import registry
from dsv4_serve.entrypoint.machine import host, machine
os.chdir("/")
{setup}
seen = host.read_host(machine.read_machine(os.environ), HostRequirements(gpus=0, group=0, load_format="instanttensor", env=dict(os.environ)))
problems = [check(seen, HostRequirements(load_format="instanttensor", env=dict(os.environ))) for check in registry.HOST]
print(json.dumps({{check.name: p.seen for check, p in zip(registry.HOST, problems) if p}}))
"""


def found(seen: Host, required: HostRequirements = RTX) -> dict[str, Problem]:
    """Every problem by its name."""
    return problems(CHECKS, seen, required)


def replay(name: str) -> Host:
    return Host(record_host.load((RECORDED / f"{name}.json").read_text()).machine)


def on_machine(seen: Host, **changes: object) -> Host:
    """The host with a changed machine."""
    return dataclasses.replace(seen, machine=dataclasses.replace(seen.machine, **changes))


def seen_as(name: str, visible: str) -> Host:
    """A recorded host as it is with CUDA_VISIBLE_DEVICES."""
    return Host(replay(name).machine.seen_with({"CUDA_VISIBLE_DEVICES": visible}))


def in_child(setup: str, **env: str) -> dict[str, str]:
    """What the checks of the host say in a process of its own, after `setup`."""
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | env
    argv = [sys.executable, "-c", AS_NOBODY.format(setup=setup)]
    done = subprocess.run(argv, env=clean, capture_output=True, text=True, timeout=60 * slowness(), check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_every_recording_says_where_it_comes_from(path: Path) -> None:
    assert record_host.load(path.read_text()).about.startswith(("recorded", "constructed: "))


def test_a_sound_host_has_no_problem() -> None:
    assert found(replay("rtx-pro-6000-x2")) == {}


def test_a_host_without_gpus_has_none_either_when_the_plan_needs_none(tmp_path: Path) -> None:
    required = HostRequirements(gpus=0, group=0, env={"HOME": str(tmp_path)})
    seen = read_host(read_machine({}), required)
    assert not {check.name for check in registry.host_checks(gpus=False) if check(seen, required)} - {"open-files"}
    assert set(registry.host_checks(gpus=True)) - set(registry.host_checks(gpus=False)) == set(registry.GPUS)


# The driver and its GPUs


def test_an_old_driver_is_named_with_the_one_that_cuda_13_needs() -> None:
    problem = found(replay("driver-570"))["driver-version"]
    assert "570.86.10" in problem.seen
    assert "12.8" in problem.seen
    assert "580" in problem.needed


def test_a_busy_gpu_is_named_with_the_process_that_holds_it() -> None:
    problem = found(replay("busy-gpu"))["busy-gpu"]
    assert "GPU 1" in problem.seen
    assert "pid 4242 39.4 GiB" in problem.seen
    assert problem.fix.endswith("GPU_MEMORY_UTILIZATION=0.56")


def test_a_share_that_leaves_cuda_no_room_is_refused_on_an_idle_gpu() -> None:
    idle = replay("rtx-pro-6000-x2")
    assert "busy-gpu" in found(idle, dataclasses.replace(RTX, utilization=0.99))
    assert "busy-gpu" not in found(idle, dataclasses.replace(RTX, utilization=0.95))


def test_a_busy_gpu_outside_the_replica_does_not_matter() -> None:
    one = dataclasses.replace(RTX, gpus=1, group=1)
    assert "busy-gpu" not in found(replay("busy-gpu"), one)
    assert "busy-gpu" in found(seen_as("busy-gpu", "1,0"), one)


def test_an_old_driver_with_a_compatibility_package_may_try() -> None:
    assert "driver-version" not in found(dataclasses.replace(replay("driver-570"), compat="580.65.06"))


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has an NVIDIA driver")
def test_a_missing_driver_is_reported_with_nvmls_message() -> None:
    problem = found(read_host(read_machine({}), RTX))["driver-answers"]
    assert "NVML" in problem.seen
    assert "580" in problem.needed


def test_a_driver_that_was_updated_under_a_running_kernel_module_asks_for_a_reboot() -> None:
    seen = Host(Machine(Driver(error="Driver/library version mismatch"), kernel_module="580.126.09"))
    assert "reboot" in found(seen)["driver-answers"].fix


def test_gpus_that_were_not_passed_to_the_container_are_distinguished_from_a_missing_driver() -> None:
    seen = Host(Machine(Driver(error="Driver Not Loaded"), kernel_module="580.126.09", device_nodes=False))
    problems = found(seen)
    assert "--gpus all" in problems["container-gpus"].fix
    assert "driver-answers" not in problems


@pytest.mark.parametrize(("library", "wrong"), [("580.65.06", True), ("595.84", False), ("", False)])
def test_a_compatibility_libcuda_older_than_the_driver_is_found(tmp_path: Path, library: str, wrong: bool) -> None:
    (tmp_path / "compat").mkdir()
    if library:
        (tmp_path / "compat" / f"libcuda.so.{library}").touch()
    version = host.compat_version(f"/nonexistent:{tmp_path / 'compat'}")
    assert version == library
    assert ("compat-library" in found(dataclasses.replace(replay("rtx-pro-6000-x2"), compat=version))) is wrong


def test_a_wrong_index_in_cuda_visible_devices_is_named() -> None:
    seen = seen_as("rtx-pro-6000-x4", "0,9,1")
    problems = found(seen)
    assert "'9'" in problems["visible-devices"].seen
    assert problems["gpu-count"].seen == "1 GPU is visible"


@pytest.mark.parametrize(
    ("named", "indexes"), [(None, (0, 1, 2, 3)), ("2,3", (2, 3)), ("GPU-3", (3,)), ("", ()), (" 1 , 0 ", (1, 0))]
)
def test_visible_gpus_are_read_as_cuda_reads_them(named: str | None, indexes: tuple[int, ...]) -> None:
    assert visible_gpus(replay("rtx-pro-6000-x4").machine.driver, named).indexes == indexes


def changed(**fields: object) -> Host:
    """The sound host with a fault on GPU 1."""
    driver = replay("rtx-pro-6000-x2").machine.driver
    gpus = (driver.gpus[0], dataclasses.replace(driver.gpus[1], **fields))
    return on_machine(replay("rtx-pro-6000-x2"), driver=dataclasses.replace(driver, gpus=gpus))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"capability": "8.9", "name": "NVIDIA GeForce RTX 4090"}, "compute-capability"),
        ({"mig": True}, "mig-mode"),
        ({"compute_mode": "prohibited"}, "compute-mode"),
        ({"fabric": "in progress"}, "fabric-manager"),
        ({"remap_failed": True}, "gpu-memory-errors"),
        ({"uncorrected": 3}, "gpu-memory-errors"),
        ({"recovery": "reset"}, "gpu-recovery"),
        ({"error": "GPU is lost"}, "gpu-recovery"),
        ({"persistence": False}, "persistence"),
        ({"width": 8}, "links-whole"),
        ({"nvlinks": 16, "nvlinks_down": 2}, "links-whole"),
    ],
)
def test_a_fault_of_one_gpu_is_found_and_the_gpu_named(fault: dict[str, object], name: str) -> None:
    problem = found(changed(**fault))[name]
    assert "GPU 1" in problem.seen
    assert "{" not in problem.fix


def test_different_gpus_need_one_way_of_counting() -> None:
    seen = changed(name="NVIDIA GeForce RTX 4090")
    assert "device-order" in found(seen)
    assert "device-order" not in found(seen, dataclasses.replace(RTX, env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}))


def test_named_hardware_must_have_the_memory_that_its_file_counts_with() -> None:
    named = dataclasses.replace(RTX, memory_gib=139.8, hardware="h200")
    problem = found(replay("rtx-pro-6000-x2"), named)["gpu-memory"]
    assert problem.fatal
    assert "139.8 GiB, as h200 has" in problem.needed
    assert "gpu-memory" not in found(replay("rtx-pro-6000-x2"), dataclasses.replace(RTX, memory_gib=95.01))


def test_hardware_of_an_architecture_without_kernels_is_ill_even_where_it_is_named() -> None:
    ampere = dataclasses.replace(RTX, capability="8.0")
    problem = found(changed(capability="8.0"), ampere)["compute-capability"]
    assert problem.needed == "SM 9.0, 10.0, 10.3, 12.0, 12.1"


def test_unnamed_hardware_may_have_any_architecture_that_has_kernels() -> None:
    anything = dataclasses.replace(RTX, capability="")
    assert "compute-capability" not in found(changed(capability="9.0"), anything)
    assert "compute-capability" in found(changed(capability="8.0"), anything)


# The container's limits, folders and ports


def test_dockers_64_mib_of_shared_memory_are_refused_at_two_gpus_and_not_at_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "shm", "64m") as shm:
        free = os.statvfs(shm).f_bavail * os.statvfs(shm).f_frsize
        seen = on_machine(replay("rtx-pro-6000-x2"), shm_free=free)
        assert "--shm-size=16g" in found(seen)["shared-memory"].fix
        assert "shared-memory" not in found(seen, dataclasses.replace(RTX, gpus=1, group=1))


def test_a_host_without_shared_memory_has_none_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SHM", tmp_path / "shm")
    assert found(Host(read_machine({})))["shared-memory"].seen == "/dev/shm has 0 MiB free"


def test_shared_memory_that_is_mounted_read_only_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "shm", "1g") as shm:
        assert "shared-memory" not in in_child(f"machine.SHM = machine.Path({str(shm)!r})")
        subprocess.run(["mount", "-o", "remount,ro", shm], check=True)
        assert in_child(f"machine.SHM = machine.Path({str(shm)!r})")["shared-memory"] == "/dev/shm cannot be written"


def test_nccl_without_peer_access_needs_more_shared_memory_and_more_for_more_channels() -> None:
    queues = limit_checks.shm_needed(HostRequirements())
    off = limit_checks.shm_needed(RTX)
    many = {"NCCL_P2P_DISABLE": "1", "NCCL_MIN_NCHANNELS": "16", "NCCL_BUFFSIZE": "33554432"}
    concurrent = limit_checks.shm_needed(dataclasses.replace(RTX, env=many))
    assert queues == 240 << 20
    assert off == queues + 2 * 2 * 2 * 9637888
    assert 2 * GIB < concurrent < 4 * GIB
    unread = {"NCCL_P2P_DISABLE": "1", "NCCL_MIN_NCHANNELS": "many", "NCCL_BUFFSIZE": "²"}
    assert limit_checks.shm_needed(dataclasses.replace(RTX, env=unread)) == off


@pytest.mark.parametrize(
    ("flags", "gib"),
    [
        ({"kv-offloading-size": 64.0}, 64),
        ({"kv-offloading-size": 64.0, "kv-offloading-backend": "lmcache"}, 0),
        ({"kv-offloading-size": 16.0, "tensor-parallel-size": 1, "data-parallel-size": 2}, 32),
        ({}, 0),
    ],
)
def test_caches_of_kv_offloading_take_shared_memory_for_each_engine(flags: dict[str, object], gib: int) -> None:
    settings = {name: Setting(value, "test") for name, value in flags.items()}
    required = plan_asks("h200", flags=settings)
    assert required.offloading_gib == gib
    queue = limit_checks.shm_needed(dataclasses.replace(required, offloading_gib=0.0))
    assert limit_checks.shm_needed(required) == queue + gib * GIB
    problem = limit_checks.shared_memory(on_machine(replay("h200-x2"), shm_free=15 * GIB), required)
    assert (problem is not None) == (gib > 0)
    if problem:
        gpus = "1 GPU" if required.group == 1 else "2 GPUs"
        assert f"for {gpus} and {gib} GiB of KV offloading" in problem.needed
        assert "--shm-size=80g for 64" in problem.fix


@pytest.mark.parametrize(("free", "gib", "told"), [(32, 64, True), (64, 64, False), (None, 64, False), (0, 0, False)])
def test_memory_for_kv_offloading_is_there_before_vllm_takes_it(free: int | None, gib: int, told: bool) -> None:
    seen = Host(memory_free=None if free is None else free * GIB)
    problem = found(seen, dataclasses.replace(RTX, offloading_gib=float(gib))).get("offloading-memory")
    assert (problem is not None) == told
    if problem:
        assert problem.fatal
        assert (f"{free}.0 GiB of memory left" in problem.seen, f"{gib} GiB for KV" in problem.needed) == (True, True)


def test_memory_is_read_only_where_a_plan_offloads() -> None:
    assert read_host(Machine(), HostRequirements(offloading_gib=1.0)).memory_free
    assert read_host(Machine(), HostRequirements()).memory_free is None


def test_folders_of_kv_offloading_are_writable_and_have_room(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "unmounted/kv")
    (tmp_path / "loop").symlink_to("loop")
    for folder, gib, name in (
        (tmp_path / "new/kv", 0.001, ""),
        (tmp_path / "nowhere/kv", 0.001, "offloading-folder"),  # mkdir fails: the link is there
        (tmp_path / "loop", 0.001, "offloading-folder"),
        (file / "kv", 0.001, "offloading-folder"),
        (Path("/proc/kv"), 0.0, "offloading-folder"),  # for root too, whom its mode lets write
        (Path("/sys/kv"), 0.0, "offloading-folder"),
        (tmp_path, 1e9, "offloading-space"),
    ):
        required = dataclasses.replace(RTX, offloading_gib=gib, offloading_folders=(str(folder),))
        problems = found(dataclasses.replace(read_host(Machine(), required), memory_free=None), required)
        names = [one for one in problems if one.startswith("offloading-")]
        assert names == [name] * bool(name)
        if name:
            assert str(folder) in problems[name].seen
            assert problems[name].fatal == (name == "offloading-folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "nowhere"]


def test_a_folder_for_files_is_not_on_a_read_only_mount_and_a_full_disk_is_another_problem(tmp_path: Path) -> None:
    with small_disk(tmp_path / "kv", "4g,nr_inodes=2") as folder:
        required = dataclasses.replace(RTX, offloading_gib=1.0, offloading_folders=(str(folder),))
        (folder / "last").touch()
        with pytest.raises(OSError, match="No space left"):
            (folder / "more").touch()
        full = found(dataclasses.replace(read_host(Machine(), required), memory_free=None), required)
        assert [name for name in full if name.startswith("offloading-")] == ["offloading-space"]
        assert "takes no more files" in full["offloading-space"].seen
        seen = Host(caches=tuple(host.read_caches({"HOME": str(tmp_path), "VLLM_CACHE_ROOT": str(folder)})))
        assert f"{folder} takes no more files" in found(seen)["cache-space"].seen
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        assert "offloading-folder" in found(read_host(Machine(), required), required)


def test_modules_of_other_tiers_are_missed_before_vllm_imports_them() -> None:
    required = dataclasses.replace(RTX, offloading_packages=("json", "nixl_of_nobody"))
    seen = read_host(Machine(), required)
    assert seen.missing_tier_packages == ("nixl_of_nobody",)
    assert "nixl_of_nobody" in found(seen, required)["offloading-packages"].seen
    own = read_host(Machine(), dataclasses.replace(required, env={"DSV4_VLLM": "/opt/vllm/bin/vllm"}))
    assert not own.missing_tier_packages


def test_a_plan_with_tiers_asks_for_their_folders_and_modules() -> None:
    extra = {"spec_name": "TieringOffloadingSpec", "secondary_tiers": [{"type": "fs", "root_dir": "/kv"}]}
    flags = {"kv-offloading-size": 8.0, "kv-transfer-config.kv_connector_extra_config": extra}
    required = plan_asks("h200", flags={name: Setting(value, "test") for name, value in flags.items()})
    assert (required.offloading_gib, required.offloading_folders) == (8, ("/kv",))
    alone = flags | {"data-parallel-size": 2, "data-parallel-size-local": 0}  # an API server, and no engine
    required = plan_asks("h200", flags={name: Setting(value, "test") for name, value in alone.items()})
    assert (required.gpus, required.offloading_gib, required.offloading_folders) == (0, 0, ())
    extra["secondary_tiers"] = [{"type": "obj"}, {"type": "p2p"}]
    required = plan_asks("h200", flags={name: Setting(value, "test") for name, value in flags.items()})
    assert (required.offloading_folders, required.offloading_packages) == ((), ("nixl",))


@pytest.mark.parametrize(
    ("flags", "ranks"),
    [
        ({}, [""]),
        ({"data-parallel-size": 2}, ["_dp0", "_dp1"]),
        ({"data-parallel-size": 2, "data-parallel-rank": 1}, ["_dp1"]),
        ({"data-parallel-size": 4, "data-parallel-size-local": 2, "data-parallel-start-rank": 2}, ["_dp2", "_dp3"]),
        ({"data-parallel-size": 4, "nnodes": 2}, ["_dp0", "_dp1"]),
        (
            {"data-parallel-size": 4, "nnodes": 2, "node-rank": 1, "headless": True, "master-addr": "10.0.0.1"},
            ["_dp2", "_dp3"],
        ),
        ({"data-parallel-size": 2, "data-parallel-size-local": 0}, []),
        ({"kv-offloading-backend": "lmcache"}, []),
    ],
)
def test_a_region_of_kv_offloading_that_another_process_has_is_refused(
    flags: dict[str, object], ranks: list[str]
) -> None:
    name = f"test-{os.getpid()}"
    flags = {"kv-offloading-size": 8.0, "kv-transfer-config.engine_id": name} | flags
    required = plan_asks("h200", flags={key: Setting(value, "test") for key, value in flags.items()})
    regions = [f"/dev/shm/vllm_offload_{name}{rank}.mmap" for rank in ranks]
    assert required.offloading_regions == tuple(regions)
    for region in regions:
        with Path(region).open("xb+") as file:
            try:
                file.truncate(mmap.PAGESIZE)
                assert not read_host(Machine(), required).regions_in_use  # nobody's: what a killed server left
                with mmap.mmap(file.fileno(), 0):
                    assert found(read_host(Machine(), required), required)["offloading-region"].seen.endswith(region)
            finally:
                Path(region).unlink()


def test_an_empty_engine_id_names_a_region_too() -> None:
    flags = {"kv-offloading-size": 8.0, "kv-transfer-config.engine_id": ""}
    required = plan_asks("h200", flags={key: Setting(value, "test") for key, value in flags.items()})
    assert required.offloading_regions == ("/dev/shm/vllm_offload_.mmap",)


def test_vllm_keeps_its_offloaded_caches_in_shared_memory() -> None:
    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    text = Path(spec.submodule_search_locations[0], "v1/kv_offload/cpu/shared_offload_region.py").read_text()
    assert 'f"/dev/shm/vllm_offload_{engine_id}.mmap"' in text


def test_vllms_own_largest_queue_is_the_floor() -> None:
    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    text = Path(spec.submodule_search_locations[0], "distributed/device_communicators/shm_broadcast.py").read_text()
    assert "max_chunk_bytes: int = 1024 * 1024 * 24," in text
    assert "max_chunks: int = 10," in text


@pytest.mark.parametrize(
    ("limit", "value", "name"),
    [("MEMLOCK", 65536, "memlock"), ("STACK", 4194304, "stack"), ("NOFILE", 1024, "open-files")],
)
def test_a_low_limit_is_found_in_a_process_that_has_it(limit: str, value: int, name: str) -> None:
    seen = in_child(f"resource.setrlimit(resource.RLIMIT_{limit}, ({value}, {value}))", HOME="/tmp")
    assert name in seen
    assert str(value if limit == "NOFILE" else value // 1024) in seen[name]


def test_limits_matter_only_where_they_are_needed() -> None:
    seen = Host(Machine(limits=ResourceLimits(memlock=65536)))
    assert "memlock" not in found(seen, HostRequirements(gpus=0))


def test_a_full_disk_for_caches_is_found_and_the_variable_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "cache", "1m") as folder:
        seen = Host(caches=tuple(host.read_caches({"HOME": str(tmp_path), "VLLM_CACHE_ROOT": f"{folder}/vllm"})))
        problem = found(seen, HostRequirements(gpus=0))["cache-space"]
        assert str(folder) in problem.seen
        assert "VLLM_CACHE_ROOT" in problem.seen
        assert "1 MiB" in problem.seen


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user id takes root")
def test_an_unwritable_cache_folder_is_found_as_another_user(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o011)
    seen = in_child("os.setuid(65534)", HOME="/tmp", VLLM_CACHE_ROOT=str(closed / "vllm"))
    assert f"{closed} cannot be written to (VLLM_CACHE_ROOT)" in seen["cache-writable"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user id takes root")
def test_a_user_without_account_and_home_is_advised_to_set_home() -> None:
    assert "no account" in in_child("os.setuid(4242424)")["home-known"]
    assert "home-known" not in in_child("os.setuid(4242424)", HOME="/tmp")


def api(number: int, host: str = "127.0.0.1") -> RequiredPort:
    return RequiredPort(host, number, "--host", "--port (PORT)")


def health(number: int) -> RequiredPort:
    return RequiredPort("127.0.0.1", number, "DSV4_HEALTH_HOST", "DSV4_HEALTH_PORT")


def test_the_health_server_that_listens_already_does_not_hide_that_it_has_the_port_of_vllm() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        required = HostRequirements(gpus=0, group=0, api_port=api(number), health_port=health(number), listening=True)
        problem = found(read_host(read_machine({}), required), required)["port-free"]
        assert problem.seen == f"port {number} is both vLLM's and the health server's"
        other = dataclasses.replace(required, api_port=api(0))
        assert "port-free" not in found(read_host(read_machine({}), other), other)


def test_a_port_in_use_is_found_with_the_process_that_listens_on_it() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        number = held.getsockname()[1]
        required = HostRequirements(gpus=0, group=0, api_port=api(number), health_port=health(0))
        problem = found(read_host(read_machine({}), required), required)["port-free"]
    assert f"port {number} on 127.0.0.1: Address already in use, pid {os.getpid()} (" in problem.seen
    assert problem.fix == "end the process that holds it, or choose another port with --port (PORT)"
    assert ports.probe_port(api(number)).refused == ""


def test_a_connection_from_a_port_does_not_hold_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert ports._holder(server.getsockname()[1]).startswith(f"pid {os.getpid()} (")
        assert not ports._holder(client.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("192.0.2.1", "Cannot assign requested address"),
        ("no.such.host.invalid", "Name or service not known"),
        ("a..b", "Name or service not known"),
    ],
)
def test_a_host_that_is_not_this_one_is_to_be_changed_rather_than_the_port(host: str, why: str) -> None:
    required = HostRequirements(gpus=0, group=0, api_port=api(8000, host))
    problem = found(read_host(read_machine({}), required), required)["port-free"]
    assert problem.seen == f"port 8000 on {host}: {why}"
    assert problem.fix == "set --host to an address of this host"


def test_a_file_that_a_variable_of_nccl_names_has_to_exist(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "NCCL_GRAPH_FILE": str(tmp_path / "graph.xml")}
    required = HostRequirements(gpus=0, group=0, env=env)
    assert "graph.xml" in found(read_host(read_machine({}), required), required)["nccl-files"].seen
    (tmp_path / "graph.xml").touch()
    assert "nccl-files" not in found(read_host(read_machine({}), required), required)


def test_missing_compilers_are_fatal_where_vllm_refuses_to_go_on_without(tmp_path: Path) -> None:
    lacking = set(build_tools.missing({"PATH": str(tmp_path), "CUDA_HOME": str(tmp_path)}))
    assert {"nvcc", "cc"} <= lacking
    seen = dataclasses.replace(replay("rtx-pro-6000-x2"), missing_tools=tuple(sorted(lacking)))
    assert found(seen)["build-tools"].fatal
    assert not found(dataclasses.replace(seen, cubins=True))["build-tools"].fatal
    assert not found(seen, dataclasses.replace(RTX, capability="9.0"))["build-tools"].fatal


def test_compilers_are_found_on_path_and_in_cuda_home(tmp_path: Path) -> None:
    for name in ("cuda/bin/nvcc", "bin/ninja", "bin/cc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    env = {"PATH": str(tmp_path / "bin"), "CUDA_HOME": str(tmp_path / "cuda")}
    assert not {"nvcc", "ninja", "cc"} & set(build_tools.missing(env))


def test_traces_need_packages_of_the_vllm_that_is_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"vllm", "opentelemetry", "opentelemetry.trace", "opentelemetry.sdk.trace"}

    def find_spec(module: str) -> bool | None:
        if "opentelemetry.exporter" in module:
            raise ModuleNotFoundError(module)
        return module in here or None

    plan = plan_asks("rtx-pro-6000", flags={"otlp-traces-endpoint": Setting("http://collector:4317", "test")})
    monkeypatch.setattr(vllm_packages.importlib.util, "find_spec", find_spec)
    problem = found(read_host(read_machine({}), plan), plan)["trace-packages"]
    names = ("opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-exporter-otlp-proto-http")
    assert (problem.seen, problem.fatal) == (f"not installed: {', '.join(names)}", True)
    assert vllm_packages.missing_for_traces({"DSV4_VLLM": "/opt/vllm"}) == ()
    quiet = plan_asks("rtx-pro-6000")
    assert "trace-packages" not in found(read_host(read_machine({}), quiet), quiet)
    here.remove("vllm")
    assert vllm_packages.missing_for_traces({}) == ()


def test_a_folder_of_tables_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for named, seen in (
        ("", False),
        (str(tmp_path), False),
        (str(tmp_path / "none"), True),
        (str(tmp_path / "file"), True),
    ):
        plan = plan_asks("h200", VLLM_TUNED_CONFIG_FOLDER=named)
        problem = found(read_host(read_machine({}), plan), plan).get("kernel-tables")
        assert (problem is not None) is seen, named
        if problem:
            assert problem.seen == f"VLLM_TUNED_CONFIG_FOLDER={named} is not a folder"
            assert not problem.fatal


def test_deepseek_on_a_cpu_needs_its_instructions() -> None:
    required = HostRequirements(gpus=0, group=0, deepseek_on_cpu=True)
    assert "AVX512_BF16" in found(Host(Machine(avx512_bf16=False)), required)["cpu-bf16"].seen
    assert "cpu-bf16" not in found(Host(Machine(avx512_bf16=True)), required)


# What a plan asks, and what it costs to look


def plan_asks(
    hardware: str, profile: str = "128k", *, model: str = "", flags: dict[str, Setting] | None = None, **env: str
) -> HostRequirements:
    named = {"profile": profile, "hardware": hardware} | ({"model": model} if model else {})
    choices = {name: Setting(value, "test") for name, value in named.items()}
    request = Request(choices, environment=Layer(), command_line=Layer(flags or {}), operator=env)
    selection = select(Catalog([]), request, lambda: HostGpus(hardware, "test"))
    return host_requirements(resolve(selection, request), selection.hardware, selection.model.get("architecture"), env)


def test_what_a_plan_asks_is_read_from_it() -> None:
    rtx = plan_asks("rtx-pro-6000", model="acti", DSV4_HEALTH_PORT="9001")
    assert (rtx.gpus, rtx.group, rtx.capability, rtx.interconnect) == (2, 2, "12.0", "pcie")
    assert rtx.utilization == 0.9
    assert not rtx.peer_access
    assert not rtx.custom_all_reduce
    assert rtx.api_port
    assert rtx.health_port
    assert (rtx.api_port.number, rtx.health_port.number) == (8000, 9001)
    follower = {"nnodes": 2, "node-rank": 1, "headless": True, "tensor-parallel-size": 4, "master-addr": "10.0.0.1"}
    headless = plan_asks("h200", flags={name: Setting(value, "test") for name, value in follower.items()})
    assert headless.api_port is None
    assert headless.health_port
    cpu = plan_asks("cpu", "demo", model="demo=/models/demo")
    assert (cpu.gpus, cpu.group, cpu.deepseek_on_cpu) == (0, 0, False)
    assert plan_asks("cpu", "demo-v4", model="demo-v4=/models/demo").deepseek_on_cpu
    twice = plan_asks("h200", flags={"data-parallel-size": Setting(2, "test")})
    assert (twice.gpus, twice.group) == (2, 1)
    h200 = plan_asks("h200")
    assert h200.peer_access
    assert h200.custom_all_reduce


def test_the_host_is_read_with_less_than_100_milliseconds_of_cpu(tmp_path: Path) -> None:
    required = HostRequirements(gpus=2, env={"HOME": str(tmp_path)}, api_port=api(0))
    times = []
    for _ in range(5):
        began = time.process_time()
        found(read_host(read_machine({}), required), required)
        times.append(time.process_time() - began)
    assert min(times) < 0.1


def test_reading_host_and_topology_imports_no_torch() -> None:
    script = (
        "import sys; from dsv4_serve.entrypoint.doctor.checks import driver, gpu, host, limit, topology;"
        "from dsv4_serve.entrypoint.machine.host import read_host;"
        "from dsv4_serve.entrypoint.machine.machine import read_machine;"
        "from dsv4_serve.entrypoint.machine.requirements import HostRequirements;"
        "read_host(read_machine({}), HostRequirements()); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60 * slowness()
    )
    assert done.stdout == "False\n"


def test_every_check_says_how_users_meet_it() -> None:
    for check in CHECKS:
        assert check.symptom
        assert check.link.startswith(("https://", "docs/"))
        assert check.tried in ("for real", "recorded", "constructed")
        assert check.looks_for


def test_a_gpu_that_cannot_be_read_is_no_gpu_to_serve_on() -> None:
    seen = Host(Machine(Driver("580.126.09", 13000, (Gpu(0, error="GPU is lost"),)), VisibleGpus((0,))))
    assert gpu.served(seen, RTX) == []


@pytest.mark.parametrize(
    ("named", "variable", "path"),
    [
        ({}, "HF_HOME", "/home/me/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/xdg"}, "HF_HOME", "/xdg/huggingface/hub"),
        ({"HF_HOME": "/hf"}, "HF_HOME", "/hf/hub"),
        ({"HF_HOME": "/hf", "HF_HUB_CACHE": "/data/hub"}, "HF_HUB_CACHE", "/data/hub"),
    ],
)
def test_the_hub_s_cache_is_the_one_that_is_downloaded_to(named: dict[str, str], variable: str, path: str) -> None:
    hub = [cache for cache in host.read_caches({"HOME": "/home/me", **named}) if cache.variable.startswith("HF_")]
    assert [(cache.variable, cache.path) for cache in hub] == [(variable, path)]


@pytest.mark.parametrize(("host", "shared"), [("0.0.0.0", True), ("127.0.0.1", True), ("127.0.0.2", False)])
def test_vllm_and_the_health_server_need_a_port_each(host: str, shared: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    required = HostRequirements(gpus=0, group=0, api_port=api(number, host), health_port=health(number))
    problem = found(read_host(read_machine({}), required), required).get("port-free")
    assert (problem.seen if problem else "") == (
        f"port {number} is both vLLM's and the health server's" if shared else ""
    )
