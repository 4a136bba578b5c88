"""Which hardware the GPUs are. What NVML would say is written down here: no machine of CI has a driver."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog import unsupported
from dsv4_serve.entrypoint.catalog.catalog import ANY_GPU, Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine import detect
from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.machine.nvml import Driver, Gpu, MigInstance
from dsv4_serve.entrypoint.machine.visible import visible_gpus
from tests.support.hosts import gpus, host
from tests.support.plans import CATALOG, request, resolved
from tools import record_host

MAX_Q = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"


FOUR = Driver("580.126.09", gpus=tuple(Gpu(i, f"GPU-{i}aaa-bbbb", MAX_Q) for i in range(4)))


def names(driver: Driver, visible: str | None = None) -> list[str]:
    return [gpu.name for gpu in detect.readable_gpus(Machine(driver, visible_gpus(driver, visible)))]


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


def test_on_a_host_with_another_makers_accelerator_the_message_says_so() -> None:
    machine = Machine(Driver(error="Library Not Found"), other=unsupported.DEVICES["/dev/kfd"])
    with pytest.raises(detect.NoGpu, match=r"an AMD accelerator.*vLLM's own ROCm build"):
        detect.hardware_of(machine, CATALOG)


def test_every_hardware_but_the_cpu_is_found_by_its_name() -> None:
    for hardware in CATALOG.every_hardware():
        for name in hardware.own.nvml_names:
            found = detect.match(name, CATALOG)
            assert found
            assert found.name == hardware.name
        assert hardware.own.nvml_names or hardware.name == "cpu"


@pytest.mark.parametrize(
    ("name", "capability", "gib", "hardware"),
    [
        ("NVIDIA GB10", "12.1", 121.7, "gb10"),
        ("NVIDIA B200", "10.0", 179.1, "b200"),
        ("NVIDIA GB200", "10.0", 185.0, "gb200"),
        ("NVIDIA B300 SXM6 AC", "10.3", 269, "b300"),
        ("NVIDIA GB300", "10.3", 277.5, "gb300"),
        ("NVIDIA H100 80GB HBM3", "9.0", 79.6, "h100"),
        ("NVIDIA H20", "9.0", 95.6, "h20"),
        ("NVIDIA H20-3e", "9.0", 140.4, "h20-3e"),
        ("NVIDIA H200 NVL", "9.0", 140.4, "h200-nvl"),
        ("NVIDIA GH200 480GB", "9.0", 95.6, "gh200"),
        ("NVIDIA GH200 144G HBM3e", "9.0", 135, "gh200-144g"),
        ("NVIDIA RTX 6000D", "12.0", 83.6, "rtx-6000d"),
    ],
)
def test_gpus_of_field_reports_are_found_with_their_own_memory(
    name: str, capability: str, gib: float, hardware: str
) -> None:
    found = detect.hardware_of(host(*gpus(2, name, capability, gib)), CATALOG)
    assert (found.hardware, found.count, found.profile_file) == (hardware, 2, None)
    file = CATALOG.hardware(hardware, "")
    assert (file.get("compute_capability"), file.get("memory_gib") <= gib) == (capability, True)


def test_a_gpu_with_less_memory_than_its_file_is_counted_with_what_it_has() -> None:
    found = detect.hardware_of(host(*gpus(2, "NVIDIA H200", "9.0", 100)), CATALOG)
    assert found.profile_file
    assert found.profile_file.get("memory_gib") == 100
    assert found.origin == "NVML: 2 x NVIDIA H200 with 100.0 GiB, not 139.8"


@pytest.mark.parametrize(("nvlink", "interconnect"), [(True, "nvlink"), (False, "pcie")])
@pytest.mark.parametrize("capability", unsupported.SERVED)
def test_a_capable_gpu_that_no_file_names_gets_the_safe_settings_of_its_architecture(
    capability: str, nvlink: bool, interconnect: str
) -> None:
    found = detect.hardware_of(host(*gpus(4, "NVIDIA Z999 Ultra", capability, 150), nvlink=nvlink), CATALOG)
    assert (found.hardware, found.count) == ("z999-ultra", 4)
    assert "no one has measured this" in found.origin
    file = found.profile_file
    assert file
    assert file.is_one_of([f"sm-{capability}"])
    assert file.is_one_of([ANY_GPU])
    assert (file.get("interconnect"), file.get("memory_gib")) == (interconnect, 150)
    plan = resolved(request(profile="64k"), gpus=found)
    assert "no one has measured this" in plan.choices["hardware"].origin
    assert plan.settings()["gpu-memory-utilization"].value == 0.9
    assert ("disable-custom-all-reduce" in plan.flags) == (capability.startswith("12") or not nvlink)


@pytest.mark.parametrize(
    ("name", "capability"),
    [("NVIDIA A100-SXM4-80GB", "8.0"), ("NVIDIA L40S", "8.9"), ("NVIDIA GeForce RTX 4090", "8.9")],
)
def test_a_gpu_without_kernels_is_refused_with_the_reason_and_no_way_around(name: str, capability: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^{name} cannot serve.*it is SM {capability}, and vLLM 0.32.0 has"
    ) as caught:
        detect.hardware_of(host(*gpus(8, name, capability, 80)), CATALOG)
    assert "--hardware" not in str(caught.value)


MIXED = host(
    *gpus(1, "NVIDIA GeForce RTX 4090", "8.9", 24),
    *gpus(2, MAX_Q, "12.0", 95.6, first=1),
    *gpus(1, "NVIDIA GeForce RTX 5090", "12.0", 32, first=3),
)


def test_of_gpus_of_several_models_those_with_the_most_memory_that_can_serve_are_taken() -> None:
    found = detect.hardware_of(MIXED, CATALOG)
    assert (found.hardware, found.count, found.only) == ("rtx-pro-6000-max-q", 2, (1, 2))
    assert found.origin == (f"NVML: 2 x {MAX_Q}; left out: 1 x NVIDIA GeForce RTX 4090, 1 x NVIDIA GeForce RTX 5090")
    plan = resolved(request(profile="64k"), gpus=found)
    assert plan.env["CUDA_VISIBLE_DEVICES"].value == "1,2"
    assert plan.env["CUDA_DEVICE_ORDER"].value == "PCI_BUS_ID"
    seen = MIXED.seen_with({"CUDA_VISIBLE_DEVICES": "1,2"})
    assert [gpu.name for gpu in seen.gpus] == [MAX_Q] * 2


def test_where_the_user_chose_gpus_of_several_models_the_answer_says_which_to_name() -> None:
    chosen = MIXED.seen_with({"CUDA_VISIBLE_DEVICES": "0,1,2"})
    with pytest.raises(ConfigError, match=rf"such as 2 x {MAX_Q} with .*CUDA_VISIBLE_DEVICES=1,2\.$"):
        detect.hardware_of(chosen, CATALOG)
    assert detect.hardware_of(MIXED.seen_with({"CUDA_VISIBLE_DEVICES": "2,1"}), CATALOG).only == ()


def split(gpu: Gpu, *instances: tuple[str, float]) -> Gpu:
    """A GPU in MIG mode."""
    parts = tuple(
        MigInstance(f"MIG-{gpu.index}{n}", name, round(gib * 2**30)) for n, (name, gib) in enumerate(instances)
    )
    return dataclasses.replace(gpu, mig=True, instances=parts)


H100 = gpus(2, "NVIDIA H100 80GB HBM3", "9.0", 79.6)


def test_a_gpu_that_mig_splits_is_named_with_its_instances_and_why_they_do_not_serve() -> None:
    machine = host(*(split(gpu, ("1g.10gb", 9.8), ("2g.20gb", 19.5)) for gpu in H100))
    with pytest.raises(ConfigError, match=r"split by MIG into 1g.10gb with 9.8 GiB, 2g.20gb with 19.5 GiB") as caught:
        detect.hardware_of(machine, CATALOG)
    assert "instances cannot be joined by NCCL" in str(caught.value)
    assert "146.1 GiB of weights" in str(caught.value)
    assert "nvidia-smi -i 0,1 -mig 0" in str(caught.value)


def test_beside_whole_gpus_those_that_mig_splits_are_left_out() -> None:
    whole, other = H100
    found = detect.hardware_of(host(split(whole, ("1g.10gb", 9.8)), other), CATALOG)
    assert (found.hardware, found.count, found.only) == ("h100", 1, (1,))
    assert found.origin.endswith("; left out: GPU 0, split by MIG")


def test_a_gpu_is_visible_by_the_uuid_of_an_instance() -> None:
    driver = host(split(H100[0], ("1g.10gb", 9.8)), H100[1]).driver
    assert visible_gpus(driver, "MIG-00").indexes == (0,)
    assert visible_gpus(driver, "MIG-99").unknown == "MIG-99"


def test_hardware_of_ones_own_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "mine.toml").write_text('nvml-names = ["NVIDIA Mine"]\n')
    found = detect.match("NVIDIA Mine", Catalog([tmp_path]))
    assert found
    assert found.name == "mine"


@pytest.mark.parametrize(("visible", "gpus"), [(None, (0, 1, 2, 3)), ("2,3", (2, 3)), ("3,2", (3, 2))])
def test_what_is_found_tells_how_many_gpus_and_how_they_are_connected(
    visible: str | None, gpus: tuple[int, ...]
) -> None:
    recorded = record_host.load((Path(__file__).parent / "recorded/rtx-pro-6000-x4.json").read_text()).machine
    machine = recorded.seen_with({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    hardware = detect.hardware_of(machine, Catalog([]))
    assert hardware.hardware.startswith("rtx-pro-6000")
    assert (hardware.count, hardware.topology and hardware.topology.gpus) == (len(gpus), gpus)


def test_replicas_side_by_side_get_gpus_of_one_model() -> None:
    assert detect.topology_of(MIXED).gpus == (1, 2)
    assert detect.topology_of(host(*H100)).gpus == (0, 1)
    assert detect.topology_of(host()).gpus == ()
