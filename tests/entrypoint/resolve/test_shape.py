"""A shape means what vLLM means by it, and what vLLM 0.32.0 cannot run is refused with a way out."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from tests.support.plans import request, resolved

HOST = {"hardware": "h200", "model": "w4a16"}
SECOND = {"nnodes": 2, "node_rank": 1, "tensor_parallel_size": 4, "headless": True, "master_addr": "10.0.0.1"}


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_every_profile_for_a_long_context_takes_each_tensor_parallel_size(size: int) -> None:
    assert resolved(request(hardware="b300", model="flash", tensor_parallel_size=size)).tensor_parallel_size == size


@pytest.mark.parametrize("other", ["data_parallel_size", "pipeline_parallel_size"])
def test_another_size_alone_means_tensor_parallel_size_1(other: str) -> None:
    plan = resolved(request(hardware="b300", model="flash", **{other: 2}))
    setting = plan.flags["tensor-parallel-size"]
    assert setting.value == 1
    assert other.replace("_", "-") in setting.origin


def test_a_tensor_parallel_size_beside_another_size_is_kept() -> None:
    plan = resolved(request(hardware="b300", model="flash", tensor_parallel_size=4, data_parallel_size=2))
    assert plan.tensor_parallel_size == 4


def test_a_size_of_one_is_no_other_shape() -> None:
    assert resolved(request(**HOST, pipeline_parallel_size=1)).tensor_parallel_size == 2


@pytest.mark.parametrize(
    ("shape", "gpus", "refused"),
    [
        ({"data_parallel_size": 8}, 8, False),
        ({"data_parallel_size": 8}, 4, True),
        ({"tensor_parallel_size": 4, "data_parallel_size": 2}, 4, True),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, 2, True),
        ({"data_parallel_size": 16, "nnodes": 2}, 8, False),
        ({"tensor_parallel_size": 8, "nnodes": 2}, 4, False),
        ({"tensor_parallel_size": 8, "nnodes": 2}, 2, True),
        ({"data_parallel_size": 16, "data_parallel_size_local": 8}, 8, False),
    ],
)
def test_the_gpus_of_this_host_are_counted(shape: dict[str, Any], gpus: int, refused: bool) -> None:
    given = request(model="flash", skip=("weights", "kv-cache"), **shape)
    try:
        resolved(given, gpus=HostGpus("b300", "NVML", gpus))
    except ConfigError as error:
        assert "gpu-count" in str(error)
        assert refused
    else:
        assert not refused


def test_a_headless_node_is_accepted() -> None:
    assert resolved(request(**HOST, **SECOND)).value("headless") is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_rank": 2}, "needed: 0 to 1; set --node-rank"),
        ({"headless": None}, "add --headless on every node but the first"),
        ({"master_addr": None}, "set --master-addr to the first node's address"),
        ({"nnodes": 3}, "3 nodes cannot share 4 GPUs evenly"),
    ],
)
def test_a_node_that_cannot_join_is_refused(change: dict[str, Any], message: str) -> None:
    given = {name: value for name, value in {**SECOND, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        resolved(request(**HOST, **given))


@pytest.mark.parametrize("own_server", ["data_parallel_external_lb", "data_parallel_hybrid_lb"])
def test_a_node_with_a_server_of_its_own_needs_no_headless(own_server: str) -> None:
    given = {**SECOND, "data_parallel_size": 2, own_server: True}
    del given["headless"]
    assert resolved(request(**HOST, **given)).value("node-rank") == 1


@pytest.mark.parametrize("size", ["decode_context_parallel_size", "prefill_context_parallel_size"])
def test_context_parallelism_is_refused_for_deepseek_v4(size: str) -> None:
    with pytest.raises(
        ConfigError, match="sliding-window cache by context; leave .* out, and use --data-parallel-size"
    ):
        resolved(request(**HOST, tensor_parallel_size=2, **{size: 2}))


@pytest.mark.parametrize("shape", [{}, {"nnodes": 2, "tensor_parallel_size": 4}])
def test_a_first_node_without_an_api_server_is_refused(shape: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--headless on the first node .*; leave --headless out here"):
        resolved(request(**HOST, headless=True, **shape))


def test_data_parallel_engines_of_a_server_elsewhere_may_be_headless() -> None:
    assert resolved(request(**HOST, headless=True, data_parallel_size=2)).value("headless") is True


def test_a_size_that_neither_profile_nor_model_has_is_one_problem() -> None:
    with pytest.raises(
        ConfigError, match="neither profile 64k nor model w4a16 supports .* 3; needed: one of 1, 2, 4, 8"
    ) as caught:
        resolved(request(**HOST, profile="64k", tensor_parallel_size=3))
    assert "problems" not in str(caught.value)


def test_several_nodes_take_no_executor_but_vllms_own() -> None:
    with pytest.raises(ConfigError, match="leave --distributed-executor-backend out"):
        resolved(request(**HOST, **SECOND, distributed_executor_backend="ray"))


def test_ranks_that_cannot_slice_the_experts_need_expert_parallelism() -> None:
    with pytest.raises(
        ConfigError, match="3 GPUs cannot share experts of 2048 rows evenly; add --enable-expert-parallel"
    ):
        resolved(request(**HOST, data_parallel_size=3))
    plan = resolved(request(**HOST, data_parallel_size=3, enable_expert_parallel=True))
    assert plan.value("data-parallel-size") == 3


@pytest.mark.parametrize("local", [-1, 3])
def test_a_node_has_no_more_ranks_than_there_are(local: int) -> None:
    with pytest.raises(ConfigError, match=f"size-local is {local}, of 2 data .*; needed: 0 to 2; set .*-local to"):
        resolved(request(**HOST, data_parallel_size=2, data_parallel_size_local=local))
    plan = resolved(request(**HOST, data_parallel_size=2, data_parallel_size_local=0))
    assert plan.value("data-parallel-size-local") == 0


@pytest.mark.parametrize("flags", [{"data_parallel_external_lb": True, "data_parallel_size": 2}, {"nnodes": 2}])
def test_a_rank_without_nodes_is_refused_unless_it_is_one_of_data_parallel_servers(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="node-rank is 1, but nnodes is not set.*set --nnodes"):
        resolved(request(profile="64k", hardware="h200", node_rank=1))
    place = {"headless": True, "master_addr": "10.0.0.1"} if "nnodes" in flags else {}
    resolved(request(profile="64k", hardware="h200", tensor_parallel_size=2, node_rank=1, **flags, **place))
