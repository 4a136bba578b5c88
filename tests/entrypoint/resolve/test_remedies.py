"""Where a plan does not fit the GPUs, each message leads on, to a start or to a true end: never in a circle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError, problems_of
from dsv4_serve.entrypoint.machine.detect import hardware_of
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.machine.nvml import Gpu
from tests.support.hosts import gpus, host
from tests.support.plans import CATALOG, request, resolved

MOST = 6
END = re.compile(r"it takes \d x|no \S+ model fits|it is SM")
CHANGE = re.compile(
    r"(?:--tp|--model|lower max-model-len to|lower max-num-batched-tokens to|raise gpu-memory-utilization to) \S+"
)


def followed(seen: HostGpus, **wanted: Any) -> str:
    """Follow each printed fix; return the message of the true end, or nothing where a plan came out."""
    for _ in range(MOST):
        try:
            resolved(request(**wanted), gpus=seen)
        except ConfigError as error:
            message = str(error).partition(" To override this")[0]
            if END.search(message):
                return message
            if sizes := re.search(r"one of (\d)[^;]*; choose one with --tp", message):
                wanted |= {"tensor_parallel_size": int(sizes[1])}
                continue
            change = CHANGE.search(message.rpartition(";")[2])
            assert change, message
            wanted |= changed(change[0].rstrip(".,"), message)
        else:
            return ""
    return pytest.fail(f"no end after {MOST} changes: {wanted}")


def changed(text: str, message: str) -> dict[str, Any]:
    *_, flag, value = text.replace(" to ", " ").split()
    both = re.search(r"--model (\S+) and --tp (\d+)", message)
    if both:
        return {"model": both[1], "tensor_parallel_size": int(both[2])}
    if flag == "--model":
        return {"model": value}
    name = "tensor_parallel_size" if flag == "--tp" else flag.replace("-", "_")
    return {name: float(value) if "." in value else int(value)}


@pytest.mark.parametrize(
    "wanted",
    [{}, {"model": "w4a16"}, {"model": "nvfp4"}, {"profile": "1m"}, {"profile": "64k", "tensor_parallel_size": 8}],
)
@pytest.mark.parametrize(
    ("seen", "end"),
    [
        (gpus(1, "NVIDIA H200", "9.0", 140.4), "it takes 2 x h200, and this process sees 1"),
        (gpus(1, "NVIDIA GB10", "12.1", 121.7), "it takes 2 x gb10, and this process sees 1"),
        (gpus(2, "NVIDIA H100 80GB HBM3", "9.0", 79.6), "it takes 4 x h100, and this process sees 2"),
        (gpus(4, "NVIDIA H100 80GB HBM3", "9.0", 79.6), ""),
        (gpus(8, "NVIDIA H20", "9.0", 95.6), ""),
        (gpus(2, "NVIDIA RTX 6000D", "12.0", 83.6), ""),
        (gpus(2, "NVIDIA RTX PRO 6000 Blackwell Server Edition", "12.0", 95.6), ""),
        (gpus(4, "NVIDIA GeForce RTX 5090", "12.0", 31.8), "it takes 8 x geforce-rtx-5090, and this process sees 4"),
        (gpus(2, "NVIDIA B200", "10.0", 179), ""),
    ],
)
def test_following_the_printed_fixes_arrives(wanted: dict[str, Any], seen: list[Gpu], end: str) -> None:
    message = followed(hardware_of(host(*seen), CATALOG), **wanted)
    assert end in message
    assert bool(message) == bool(end)


@pytest.mark.parametrize(
    ("shape", "count", "fix"),
    [
        ({"data_parallel_size": 8}, 4, "set --data-parallel-size 4"),
        ({"tensor_parallel_size": 2, "data_parallel_size": 8}, 4, "set --data-parallel-size 2"),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 4}, 2, "set --pipeline-parallel-size 1"),
        ({"tensor_parallel_size": 8, "data_parallel_size": 2}, 8, "set --tp 1"),
    ],
)
def test_too_many_groups_lead_to_fewer(shape: dict[str, int], count: int, fix: str) -> None:
    seen = hardware_of(host(*gpus(count, "NVIDIA B200", "10.0", 179)), CATALOG)
    with pytest.raises(ConfigError, match="gpu-count") as caught:
        resolved(request(model="flash", profile="64k", **shape), gpus=seen)
    assert f"; {fix}. To override" in str(caught.value)


def test_gpus_of_several_hosts_count_together() -> None:
    seen = hardware_of(host(*gpus(1, "NVIDIA GB10", "12.1", 121.7)), CATALOG)
    with pytest.raises(ConfigError, match="more hosts count with --nnodes"):
        resolved(request(), gpus=seen)
    plan = resolved(request(nnodes=2), gpus=seen)
    assert (plan.tensor_parallel_size, plan.value("nnodes", 1)) == (2, 2)
    assert not any(name.startswith("NCCL_") for name in plan.env)


@pytest.mark.parametrize(("kind", "share", "own"), [("gb10", 0.15, "0.82"), ("rtx-pro-6000", 0.8, "0.95")])
def test_a_share_of_memory_below_the_hardwares_own_is_raised_first(kind: str, share: float, own: str) -> None:
    wanted = {"hardware": kind, "gpu_memory_utilization": share, "max_model_len": 65536}
    with pytest.raises(ConfigError, match=f"; raise gpu-memory-utilization to {own}\\. To override"):
        resolved(request(**wanted))
    assert resolved(request(**wanted | {"gpu_memory_utilization": float(own)})).tensor_parallel_size == 2


@pytest.mark.parametrize(("model", "profile"), [("pro", "pro"), ("v41-flash", "v41")])
def test_a_model_of_another_profile_leads_to_that_profile(model: str, profile: str) -> None:
    with pytest.raises(ConfigError, match=f"set --profile {profile}, or choose one with --model"):
        resolved(request(profile="64k", hardware="h200", model=model, tensor_parallel_size=8, skip=("weights",)))


def test_no_profile_is_named_that_is_for_other_hardware() -> None:
    with pytest.raises(ConfigError, match="flash-vision; choose one with --model"):
        resolved(request(profile="64k", hardware="cpu", model="pro"))
    with pytest.raises(ConfigError, match="flash-vision; set --profile pro, or choose one with --model"):
        resolved(request(profile="64k", hardware="rtx-pro-6000", model="pro", skip=("weights",)))


def test_no_end_claims_that_no_other_model_fits() -> None:
    with pytest.raises(ConfigError, match="no deepseek-v4-pro model fits rtx-pro-6000 at the sizes of profile 64k"):
        resolved(request(profile="64k", hardware="rtx-pro-6000", model="pro"))


def test_hardware_that_the_profile_excludes_is_the_reason_where_no_model_is_its_default() -> None:
    with pytest.raises(ConfigError, match="profile 64k does not support cpu; needed: a GPU; choose another"):
        resolved(request(profile="64k", hardware="cpu"))


def test_an_architecture_is_named_by_its_gpus_and_a_profile_that_serves_here_is_named() -> None:
    """Kernels and memory of a profile that is for other hardware are no causes of their own."""
    with pytest.raises(ConfigError) as caught:
        resolved(request(profile="pro-dp", hardware="h200"))
    (problem,) = problems_of(caught.value)
    assert "needed: a GPU of SM 10.x (b200, b300, gb200, gb300); set --profile pro." in problem
    with pytest.raises(ConfigError) as caught:
        resolved(request(profile="pro-dp", hardware="h200", skip=("profile-hardware",)))
    assert len(problems_of(caught.value)) == 2


def test_that_holds_for_a_profile_in_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "my profiles"
    folder.mkdir()
    (folder / "mine.toml").write_text(
        'extends = "shared"\nhardware = ["b300"]\n[flags]\nkv-cache-dtype = "nvfp4_ds_mla"\n'
    )
    with pytest.raises(ConfigError) as caught:
        resolved(request(profile="mine", hardware="h200", model="w4a16"), Catalog([folder]))
    (problem,) = problems_of(caught.value)
    assert "profile mine does not support h200" in problem


def test_a_flag_of_the_user_is_told_beside_a_profile_for_other_hardware() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(request(profile="pro-dp", hardware="h200", kv_cache_dtype="nvfp4_ds_mla"))
    assert ["kv-cache-dtype" in problem for problem in problems_of(caught.value)] == [True, False]


def test_too_few_gpus_for_the_weights_are_one_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(request(profile="pro", model="pro"), gpus=HostGpus("rtx-pro-6000", "test", 2))
    (problem,) = problems_of(caught.value)
    assert "it takes 16 x rtx-pro-6000, and this process sees 2" in problem


def test_a_share_of_memory_that_was_lowered_is_raised_before_more_gpus_are_asked_for() -> None:
    wanted = {"profile": "64k", "model": "acti", "tensor_parallel_size": 2}
    box = HostGpus("rtx-pro-6000", "test", 2)
    with pytest.raises(ConfigError, match="raise gpu-memory-utilization to 0.95"):
        resolved(request(**wanted, gpu_memory_utilization=0.1), gpus=box)
    resolved(request(**wanted, gpu_memory_utilization=0.95), gpus=box)


def test_a_smaller_size_that_takes_fewer_gpus_is_named() -> None:
    with pytest.raises(ConfigError, match="needed: 8 GPUs; with --tp 4 it takes 4 x b300"):
        resolved(request(profile="pro"), gpus=HostGpus("b300", "test", 1))
