"""How dummy weights choose experts: the strategy that the installed vLLM has, unless the environment says otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import command, compare, measure, routing
from dsv4_serve.entrypoint.bench.options import ServeOptions
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.doctor import installed_patches
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.patcher.series import locate, newest, read_series
from tests.support.plans import request, selected

STRATEGIES = [({routing.PATCH, "another"}, "uniform_spread"), ({"another"}, "uniform_random"), (None, "uniform_random")]


def test_the_patch_of_the_series_adds_the_strategy() -> None:
    [patch] = [patch for patch in read_series(locate(newest())).patches if patch.name == routing.PATCH]
    assert f'+        "{routing.SPREAD}": ' in patch.path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("applied", "strategy"), STRATEGIES)
def test_a_strategy_is_one_that_the_installed_vllm_has(
    monkeypatch: pytest.MonkeyPatch, applied: set[str] | None, strategy: str
) -> None:
    """A vLLM that cannot be read may lack it, and would not start."""
    monkeypatch.setattr(installed_patches, "applied_patches", lambda: applied)
    assert routing.variables("9.0") == {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY": strategy}


def test_experts_are_not_routed_at_random_where_that_would_change_their_kernels() -> None:
    found = {
        name: Catalog([]).hardware(name, "").get("compute_capability") for name in ("h200", "rtx-pro-6000", "b300")
    }
    assert {name: bool(routing.variables(capability)) for name, capability in found.items()} == {
        "h200": True, "rtx-pro-6000": True, "b300": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("applied", "own", "strategy"),
    [
        (set(), {}, "uniform_random"),
        ({routing.PATCH}, {}, "uniform_spread"),
        ({routing.PATCH}, {routing.VARIABLE: "uniform_random"}, "uniform_random"),
        ({routing.PATCH}, {routing.VARIABLE: "normal_routing"}, "normal_routing"),
        ({routing.PATCH}, {routing.VARIABLE: ""}, ""),
    ],
)
def test_a_replica_without_weights_gets_it_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, applied: set[str], own: dict[str, str], strategy: str
) -> None:
    started: list[dict[str, str]] = []

    @contextlib.contextmanager
    def replica(_argv: object, environ: dict[str, str], *_: object) -> Iterator[Any]:
        started.append(environ)
        yield SimpleNamespace(endpoint="where")

    monkeypatch.setattr(installed_patches, "applied_patches", lambda: applied)
    monkeypatch.setattr(command.local_replica, "replica", replica)
    asked = request()
    chosen, serve = selected(asked), ServeOptions({}, acceptance=(0.89,))
    environ = {"DSV4_CACHE": str(tmp_path), "DSV4_VLLM": "vllm", **own}
    with command.without_weights(chosen, resolve(chosen, asked), serve, environ):
        pass
    [had] = started
    assert had[routing.VARIABLE] == strategy
    told = f"dummy weights, experts {strategy}" if strategy else "dummy weights"
    assert measure.described((), had) == told


def result(strategy: str) -> dict[str, Any]:
    """A result as `dsv4 bench --without-weights` writes it."""
    replica = {"settings": {"model": {"value": "m"}, "load-format": {"value": "dummy"}}}
    whole = {**replica, "env": {routing.VARIABLE: strategy}, "machine": {"driver": "580"}}
    figures = {"output_tokens_per_second": 10.0, "tpot_p50": 9.0, "ttft_p50": 30.0}
    row = {"batch": 1, "input": 256, "output": 256, **figures}
    return {"file": strategy, "weights": measure.weights_of(whole), "replica": whole, "rows": [row]}


def test_a_comparison_names_another_routing() -> None:
    before, after = result("uniform_random"), result("uniform_spread")
    assert before["weights"] == "dummy weights, experts uniform_random"
    assert compare.compared(before, after)["differs"] == {
        "weights": ["dummy weights, experts uniform_random", "dummy weights, experts uniform_spread"],
        "VLLM_MOE_ROUTING_SIMULATION_STRATEGY": ["uniform_random", "uniform_spread"],
    }
    assert compare.compared(after, after)["differs"] == {}


def test_a_comparison_names_it_beside_an_engine_without_a_plan() -> None:
    stock = {**result("uniform_random"), "replica": {"machine": {"driver": "580"}}}
    assert compare.compared(stock, result("uniform_spread"))["differs"]["weights"] == [
        "dummy weights, experts uniform_random", "dummy weights, experts uniform_spread",
    ]  # fmt: skip
