"""The first start of a run compiles kernels in many processes before it begins, and no other one does."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import kernel_prebuild
from dsv4_serve.entrypoint.bench.options import LoadMatrix, ServeOptions
from dsv4_serve.entrypoint.cli import parser, request
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded
from dsv4_serve.entrypoint.resolve.resolution import Resolution
from dsv4_serve.entrypoint.tune import measure
from dsv4_serve.entrypoint.tune.candidates import TuneCandidate
from dsv4_serve.entrypoint.tune.measure import Bench
from dsv4_serve.entrypoint.tune.setups import Setups


@pytest.mark.parametrize(("first", "took", "left"), [(True, 20.0, 40.0), (False, 20.0, 60.0), (True, 61.0, None)])
def test_only_the_first_start_compiles_before_it(
    first: bool, took: float, left: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    options, flags = parser.parse(["serve", "--model", "w4a16", "--profile", "64k", "--tp", "2", "--skip", "weights"])
    resolved = Resolution(*request.resolved(options, flags))
    done: list[Any] = []

    @contextmanager
    def replica(_argv: Any, _environ: Any, _folder: Any, seconds: float) -> Any:
        done.append(seconds)
        raise ReplicaEnded("no GPU")
        yield

    monkeypatch.setattr(local_replica, "replica", replica)

    def of_plan(*args: Any) -> None:
        done.append(args)
        clock.append(took)

    clock = [0.0]
    monkeypatch.setattr(measure.time, "monotonic", lambda: sum(clock))
    monkeypatch.setattr(kernel_prebuild, "of_plan", of_plan)
    setups = Setups("64k", lambda _name, _folders: resolved, {"a": TuneCandidate("a", "a", {"x": 1}, "")}, tmp_path)
    environ = {"DSV4_CACHE": str(tmp_path / "cache"), "PATH": ""}
    bench = Bench(setups, ServeOptions({}), LoadMatrix((1,)), environ, tmp_path / "logs")
    failed = measure.visit(bench, ("a",), 60, first=first).trial.failed
    compiled, starts = done[: int(first)], done[int(first) :]
    assert starts == ([] if left is None else [left]), "what the compilers took is not there for the start"
    assert failed.startswith("no GPU" if starts else "compiling kernels took all the time")
    for selection, plan, variables, seconds in compiled:
        assert seconds == 60
        assert (selection, plan) == (resolved.selection, resolved.plan)
        assert variables["DSV4_CACHE"] == environ["DSV4_CACHE"]
