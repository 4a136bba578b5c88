"""The steps of the pack job, with stand-ins for the replica and `dsv4 kernels`: what it starts, keeps and concludes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench.kernel_prebuild import PrebuiltKernels
from dsv4_serve.entrypoint.bench.sweep import SweepResult
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded
from qualification.gpu import full_size, run_packs


class Host:
    """A host whose start compiles one kernel where the cache has none, and whose requests compile `by_requests` ones."""

    def __init__(self, out: Path) -> None:
        self.kernels = out / "home/dsv4/build/h200/w4a16"
        self.done: list[str] = []
        self.by_requests = 0
        self.fails = False

    def compile(self, name: str) -> None:
        file = self.kernels / "triton/A" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def planned(self, options: Any, environ: Any) -> Any:
        assert environ["DSV4_CACHE"] == str(self.kernels.parents[2])
        plan = SimpleNamespace(value=lambda name, default: 4096)
        return SimpleNamespace(kernels=self.kernels, serve=["--profile", "524k"], environ=environ, plan=plan)

    @contextlib.contextmanager
    def replica(self, serve: Any, environ: Any, folder: Path, seconds: float) -> Iterator[Any]:
        cold = not (self.kernels / "triton/A/start").exists()
        self.done.append(f"{folder.name}, {'empty' if cold else 'warm'}")
        self.compile("start")
        if self.fails:
            raise ReplicaEnded("it ended")
        yield SimpleNamespace(endpoint=None, start={"phases": {"starting": 1.0}, "caches": "cold"})

    def ask(self, where: Any, requests: int, seed: int, context: int) -> dict[str, Any]:
        for number in range(self.by_requests):
            self.compile(f"{seed}-{number}")
        self.done.append(f"{requests} requests of seed {seed}")
        return {"requests": requests}

    def dsv4(self, out: Path, how: Any, action: str, *words: str) -> dict[str, Any]:
        self.done.append(action)
        if action == "export":
            Path(words[1]).write_bytes(b"pack")
        else:
            self.compile("start")
        return {"seconds": 1.0}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    found = Host(tmp_path)
    monkeypatch.setattr(full_size, "planned", found.planned)
    monkeypatch.setattr(full_size, "ask", found.ask)
    monkeypatch.setattr(local_replica, "replica", found.replica)
    monkeypatch.setattr(run_packs.sweep, "run", lambda where, prompts: SweepResult(70, 8.0, 0.2, 64))
    monkeypatch.setattr(run_packs, "dsv4", found.dsv4)
    monkeypatch.setattr(run_packs, "cold_seconds", lambda pack: None)
    return found


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(sys, "argv", ["run_packs", "--out", str(out), "--share", "2", *words])
    return run_packs.main(), json.loads((out / "packs.json").read_text())


def test_a_first_host_starts_from_empty_caches_and_exports_what_its_requests_compiled_too(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.by_requests = 2
    status, found = run(monkeypatch, tmp_path, "--export-only")
    assert host.done == ["cold, empty", "200 requests of seed 1", "export"]
    assert (status, found["share"], found["pack_bytes"]) == (0, 2, 4)
    assert found["cold"]["compiled"]["names"] == ["triton/A/start"]
    assert found["cold_requests"]["compiled"]["by"] == {"triton": 2}


def test_kernels_are_compiled_before_a_cold_start_where_that_is_asked_for(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def prebuilt(options: Any, how: Any) -> tuple[list[Any], PrebuiltKernels]:
        host.done.append("prebuilt")
        return [], PrebuiltKernels(87, 40.0)

    monkeypatch.setattr(full_size, "prebuilt", prebuilt)
    _, found = run(monkeypatch, tmp_path, "--export-only", "--prebuild")
    assert host.done[:2] == ["prebuilt", "cold, empty"]
    assert found["prebuilt"] == {"kernels": 87, "seconds": 40.0, "failed": ""}


def test_a_start_that_was_cut_exports_what_it_compiled(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.fails = True
    status, found = run(monkeypatch, tmp_path, "--export-only")
    assert (status, host.done) == (1, ["cold, empty", "export"])
    assert (found["failed"], found["pack_bytes"]) == ("ReplicaEnded: it ended", 4)


@pytest.mark.parametrize("by_requests", [0, 1])
def test_a_second_host_imports_into_empty_caches_and_sends_other_requests(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_requests: int
) -> None:
    (tmp_path / "other").write_bytes(b"pack")
    host.compile("left by another run")
    host.by_requests = by_requests
    status, found = run(monkeypatch, tmp_path, "--pack", str(tmp_path / "other"), "--cold", "3600")
    assert host.done == ["import", "packed, warm", "200 requests of seed 2"]
    assert not (host.kernels / "triton/A/left by another run").exists()
    assert (status, found["of_cold"], found["cold_seconds"]) == (by_requests, 0.0, 3600)
    assert (found["packed"]["compiled"]["files"], found["packed_requests"]["compiled"]["files"]) == (0, by_requests)


@pytest.mark.parametrize(("share", "start", "requests"), [(0.26, 0, 0), (0.2, 1, 0), (0.2, 0, 1)])
def test_the_aim_is_missed(share: float, start: int, requests: int) -> None:
    def found(share: float, *files: int) -> dict[str, Any]:
        named = zip(("packed", "packed_requests"), files, strict=True)
        return {"of_cold": share, **{name: {"compiled": {"files": number}} for name, number in named}}

    assert run_packs.passed(found(run_packs.LIMIT, 0, 0))
    assert not run_packs.passed(found(share, start, requests))


def test_without_another_host_both_are_done_here(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, tmp_path)[0] == 0
    assert [one.partition(",")[0] for one in host.done if "requests" not in one] == [
        "cold",
        "export",
        "import",
        "packed",
    ]


def test_the_deadline_ends_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with pytest.raises(local_replica.Stopped), full_size.deadline(0.05):
        time.sleep(60)
    assert time.monotonic() - began < 30
    with full_size.deadline(60):
        pass


def test_lengths_are_mixed_and_fit_the_context() -> None:
    drawn = full_size.lengths(200, 1, 524_288)
    assert (len(drawn), min(drawn) >= 1) == (200, True)
    assert [sum(low <= one < 10 * low for one in drawn) > 20 for low in (10, 100, 1000)] == [True] * 3
    assert sum(one > full_size.SHORT for one in drawn) == 200 // full_size.FEW_LONG
    assert max(full_size.lengths(200, 1, 4096)) == 4096 - full_size.MOST - 8
    assert drawn != full_size.lengths(200, 2, 524_288)


def test_a_kernel_that_is_written_again_is_told_from_a_new_one(tmp_path: Path) -> None:
    for name in ("triton/a", "triton/b", "vllm/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    before = full_size.kernels(tmp_path)
    (tmp_path / "triton/d").touch()
    (tmp_path / "triton/x.lock").touch()
    os.utime(tmp_path / "triton/b", ns=(1, 1))
    found = full_size.fresh(before, full_size.kernels(tmp_path))
    assert found == {"files": 1, "by": {"triton": 1}, "names": ["triton/d"], "again": ["triton/b"]}
    os.utime(tmp_path / "triton/d", ns=(1, 1_500_000_000))
    assert full_size.timeline(before, full_size.kernels(tmp_path)) == "1.500 0 triton/d\n"


def test_a_share_of_the_plan_is_served_with_the_routing_of_serve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    options = SimpleNamespace(profile="524k", model="w4a16", tp=None, share=2)
    how = full_size.planned(options, full_size.caches_in(tmp_path, os.environ))  # type: ignore[arg-type]
    folder = Path(how.serve[how.serve.index("--model") + 1].partition("=")[2])
    assert folder.is_relative_to(tmp_path)
    assert json.loads((folder / "config.json").read_text())["num_attention_heads"] == 32
    assert how.serve[how.serve.index("--tp") + 1] == "1"
    assert "VLLM_MOE_ROUTING_SIMULATION_STRATEGY" not in how.environ
    assert how.kernels.is_relative_to(tmp_path / "dsv4")
