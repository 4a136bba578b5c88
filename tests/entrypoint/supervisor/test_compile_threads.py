"""A first start compiles Triton's kernels in as many threads as each rank has cores, where vLLM would take fewer."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.supervisor import compile_threads
from dsv4_serve.entrypoint.supervisor.compile_threads import VARIABLE


@pytest.mark.parametrize(
    ("cores", "ranks", "threads"),
    [
        (32, 2, "16"),
        (32, 4, "8"),
        (12, 2, "6"),
        (192, 8, "16"),
        (8, 2, None),
        (2, 1, None),
        (0, 0, None),
        (64, 0, "16"),
    ],
)
def test_the_cores_of_a_node_are_shared_by_its_ranks(cores: int, ranks: int, threads: str | None) -> None:
    assert compile_threads.variables({}, cores, ranks).get(VARIABLE) == threads


def test_a_number_that_is_set_stays() -> None:
    assert compile_threads.variables({VARIABLE: "2"}, 32, 2) == {}


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_reads_it_and_no_compiled_graph_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs

    before = envs.compile_factors()
    monkeypatch.setenv(VARIABLE, "16")
    assert envs.VLLM_TRITON_JIT_WARMUP_NUM_THREADS == 16
    assert envs.compile_factors() == before
