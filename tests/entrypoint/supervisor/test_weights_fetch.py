"""Weights are fetched before vLLM starts: from a Hub over real sockets, with its progress, its bounds and its end."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import cache_growth, startup, weights_fetch
from dsv4_serve.entrypoint.supervisor.context import ServeContext
from dsv4_serve.entrypoint.supervisor.lifecycle import Lifecycle, StartEnded
from dsv4_serve.entrypoint.supervisor.weights_fetch import Repository
from dsv4_serve.entrypoint.weights import download, fetch_program
from dsv4_serve.entrypoint.weights.hub import Place
from dsv4_serve.healthcheck.state import Health
from tests.support.hub import REPOSITORY, Hub, hub_server
from tests.support.replica import Start


def plan(**flags: object) -> Plan:
    """`group--key` stands for the key of a JSON flag, which keeps its underscores."""
    settings = {}
    for name, value in flags.items():
        group, dot, key = name.partition("--")
        settings[group.replace("_", "-") + dot.replace("--", ".") + key] = Setting(value, "test")
    return Plan({}, settings, {})


@pytest.mark.parametrize(
    ("flags", "fetched"),
    [
        ({"model": "owner/model"}, [Repository("owner/model")]),
        (
            {"model": "owner/model", "revision": "v1", "download_dir": "/data"},
            [Repository("owner/model", "v1", "/data")],
        ),
        (
            {"model": "owner/model", "speculative_config--model": "owner/drafter"},
            [Repository("owner/drafter"), Repository("owner/model")],
        ),
        ({"model": "owner/model", "speculative_config--model": "owner/model"}, [Repository("owner/model")]),
        (
            {
                "model": "owner/model",
                "speculative_config--model": "owner/drafter",
                "speculative_config--num_speculative_tokens": 0,
            },
            [Repository("owner/model")],
        ),
        ({"model": "owner/model", "load_format": "safetensors"}, [Repository("owner/model")]),
        *(({"model": "owner/model", "load_format": way}, []) for way in ("dummy", "runai_streamer", "tensorizer")),
        *(({"model": where}, []) for where in ("s3://bucket/model", "gs://a/b", "/models/w4a16", "./w4a16", "")),
    ],
)
def test_what_vllm_would_download_from_the_hub_is_fetched(flags: dict[str, str], fetched: list[Repository]) -> None:
    assert weights_fetch.repositories(plan(**flags), {}) == fetched


def test_a_folder_with_a_name_like_a_repository_is_no_repository(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/model").mkdir(parents=True)
    assert weights_fetch.repositories(plan(model="owner/model"), {}) == []


def test_it_is_left_to_vllm_where_the_user_says_so() -> None:
    off = Plan({}, plan(model="owner/model").flags, {}, supervision={"supervise.fetch": Setting(False, "test")})
    assert weights_fetch.repositories(off, {}) == []
    assert weights_fetch.repositories(plan(model="owner/model"), {"VLLM_USE_MODELSCOPE": "True"}) == []


def test_the_program_is_the_one_that_is_tested_here() -> None:
    assert fetch_program.__spec__.name == weights_fetch.PROGRAM


@pytest.fixture
def fetch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> weights_fetch._Fetch:
    caplog.set_level(logging.INFO, "dsv4_serve")
    life = Lifecycle.__new__(Lifecycle)
    life.health = Health()
    return weights_fetch._Fetch(Repository("owner/model"), tmp_path, life, 600.0)


def test_percent_rate_and_time_left_are_published_and_logged(fetch, caplog) -> None:
    for second in range(0, 61, 10):
        fetch.take({"here": 50_000_000 * (second + 60), "size": 157_000_000_000, "read": 0}, float(second))
    health = fetch.life.health
    assert health.percent == pytest.approx(100 * 6.0 / 157)
    assert health.rate == pytest.approx(50e6)
    assert health.detail == "6.0 of 157.0 GB, 50 min left"
    assert caplog.messages[0] == "fetching owner/model: 2 %, 3.0 of 157.0 GB"
    assert caplog.messages[-1] == "fetching owner/model: 4 % at 50 MB/s, 6.0 of 157.0 GB, 50 min left"
    assert len(caplog.messages) == 4  # every 15 s at most


def test_bytes_and_the_reading_of_partial_files_are_progress_and_nothing_else_is(fetch) -> None:
    for now, report in (
        (1.0, {"here": 0, "size": 9, "read": 0}),
        (2.0, {"here": 1, "size": 9, "read": 0}),
        (3.0, {"here": 1, "size": 9, "read": 5}),
        (4.0, {"here": 1, "size": 9, "read": 5}),
    ):
        fetch.take(report, now)
    assert fetch.moved == 3.0
    assert fetch.fetched


def test_while_another_process_fetches_the_cache_has_to_grow(fetch, caplog) -> None:
    fetch.take({"waits": "another process is fetching /cache/blobs/1; wait for it to finish, or stop it."}, 20.0)
    assert fetch.fetched
    assert caplog.messages == ["waiting: another process is fetching /cache/blobs/1"]
    for now, held in ((30.0, 100), (40.0, 200), (50.0, 200)):
        fetch._look(held, now)
    assert fetch.moved == 40.0


def test_vllm_is_kept_from_a_hub_that_cannot_be_reached(fetch, caplog, tmp_path: Path) -> None:
    fetch.life.context = ServeContext({"A": "b"}, "vllm", "127.0.0.1", 0, tmp_path, tmp_path)
    fetch.take({"note": "cannot reach it. owner/model is served from /cache.", "offline": True}, 1.0)
    assert fetch.life.context.environ == {"A": "b", "HF_HUB_OFFLINE": "1"}
    assert not fetch.fetched


def test_what_a_library_prints_does_not_end_the_reading(fetch, caplog) -> None:
    async def read() -> None:
        stream = asyncio.StreamReader()
        for line in (b"x" * 300_000, b"5", b"[" * 50_000, b'{"note": "whole"}'):
            stream.feed_data(line + b"\n")
        stream.feed_eof()
        await fetch._read(stream)

    asyncio.run(read())
    assert caplog.messages == ["whole"]


@pytest.mark.process
@pytest.mark.parametrize("stops", [True, False])
def test_a_program_without_an_output_is_ended_by_a_stop_and_by_the_limit(
    fetch, tmp_path: Path, monkeypatch, stops: bool
) -> None:
    (tmp_path / "silent.py").write_text("import os, time\nos.close(1)\ntime.sleep(30)\n")
    monkeypatch.setattr(weights_fetch, "PROGRAM", "silent")
    fetch.limit = 30.0 if stops else 0.5

    async def run() -> None:
        fetch.life.signals = SimpleNamespace(stop=asyncio.Event())
        if stops:
            asyncio.get_running_loop().call_later(0.5, fetch.life.signals.stop.set)
        async with asyncio.timeout(10):
            await fetch.run({**os.environ, "PYTHONPATH": str(tmp_path)})

    with pytest.raises(StartEnded) as ended:
        asyncio.run(run())
    assert ended.value.reason.cause.exit_status == (0 if stops else 84)


def test_the_cache_holds_what_any_process_wrote_by_any_call(tmp_path: Path) -> None:
    import mmap

    blobs = tmp_path / "models--owner--model/blobs"
    blobs.mkdir(parents=True)
    with (blobs / "1.incomplete").open("wb+") as file:
        file.truncate(8 << 20)
        before = cache_growth.held([tmp_path])
        with mmap.mmap(file.fileno(), 8 << 20) as mapped:
            mapped[: 4 << 20] = b"x" * (4 << 20)
            mapped.flush()
    assert cache_growth.held([tmp_path]) - before >= 4 << 20
    assert cache_growth.held([tmp_path / "nothing"]) == 0


def test_a_cache_that_grows_is_a_download_whoever_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"arrived": 0, "held": 0, "looks": 0}

    def held(caches: list[Path]) -> int:
        assert caches == [tmp_path]
        counts["looks"] += 1
        return counts["held"]

    monkeypatch.setattr(startup, "arrived", lambda _: counts["arrived"])
    monkeypatch.setattr(startup, "held", held)

    async def rates() -> list[float]:
        download, found = startup._Download(tmp_path), []
        for tick in range(20):
            counts["held"] += 5_000_000
            found.append(await download.per_second(100 + tick / 2, [1]))
        counts["arrived"] += 500_000_000
        found.append(await download.per_second(110.0, [1]))
        return found

    found = asyncio.run(rates())
    assert found[0] == 0.0
    assert found[-2] == pytest.approx(10e6)
    assert found[-1] == pytest.approx(50e6)  # the faster of the two
    assert counts["looks"] == 6  # every 2 s, not with every look at the processes


def run_program(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, list[dict]]:
    status = fetch_program.main(arguments)
    logging.disable(logging.NOTSET)
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    files = {path.name: path.read_bytes() for path in write_checkpoint(tmp_path / "model").iterdir()}
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_WAIT", 0.001)
    with hub_server(files | {"model.safetensors": bytes(3 << 20)}) as hub:
        monkeypatch.setattr(fetch_program.hub, "Place", functools.partial(Place, hub.url))
        yield hub


def test_the_program_reports_what_came_then_that_it_is_complete(served: Hub, tmp_path: Path, capsys) -> None:
    status, reports = run_program(capsys, REPOSITORY, "", str(tmp_path / "cache"))
    assert status == 0
    assert reports[0]["here"] == reports[0]["size"] - (3 << 20)
    assert "are complete in" in reports[-1]["note"]
    assert [list(report) for report in run_program(capsys, REPOSITORY, "", str(tmp_path / "cache"))[1]] == [["note"]]


def test_a_dead_download_ends_by_its_own_bounds(served: Hub, tmp_path: Path, capsys) -> None:
    served.short = 10
    status, reports = run_program(capsys, REPOSITORY, "", str(tmp_path / "cache"))
    assert status == 69
    assert reports[-1]["status"] == 69
    assert "stopped after" in reports[-1]["failed"]


def test_without_the_hub_a_complete_cache_is_served_and_another_one_is_not(
    served: Hub, tmp_path: Path, capsys, monkeypatch
) -> None:
    run_program(capsys, REPOSITORY, "", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch_program.hub, "Place", functools.partial(Place, "http://127.0.0.1:9"))
    status, reports = run_program(capsys, REPOSITORY, "", str(tmp_path / "cache"))
    assert status == 0
    assert "cannot reach http://127.0.0.1:9" in reports[0]["note"]
    assert "owner/model is served from" in reports[0]["note"]
    assert reports[0]["offline"]
    weights = next((tmp_path / "cache").rglob("model.safetensors"))
    weights.unlink()
    for cache in ("cache", "empty"):
        status, reports = run_program(capsys, REPOSITORY, "", str(tmp_path / cache))
        assert (status, "cannot reach" in reports[-1]["failed"]) == (69, True)


def test_two_starts_that_share_a_cache_wait_for_each_other(served: Hub, tmp_path: Path, capsys, monkeypatch) -> None:
    fetches = iter([download.FetchedElsewhere("another process is fetching it; wait."), None])

    def fetch(*_: object, **__: object) -> Path:
        if error := next(fetches):
            raise error
        return tmp_path

    monkeypatch.setattr(fetch_program.hub, "fetch", fetch)
    monkeypatch.setattr(fetch_program, "AGAIN", 0.001)
    status, reports = run_program(capsys, REPOSITORY, "", "")
    assert (status, [list(report) for report in reports]) == (0, [["waits"], ["note"]])


@pytest.fixture
def hub_of_the_demo(tmp_path: Path):
    files = {path.name: path.read_bytes() for path in write_checkpoint(tmp_path / "demo").iterdir()}
    with hub_server(files) as hub:
        yield hub


def of_hub(hub: Hub, tmp_path: Path, **env: str) -> dict[str, str]:
    places = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    return {"MODEL": f"demo={REPOSITORY}", **places, **env}


@pytest.mark.process
@pytest.mark.slow
def test_a_start_fetches_then_serves_and_answers_probes_meanwhile(
    start: Start, hub_of_the_demo: Hub, tmp_path: Path
) -> None:
    hub_of_the_demo.trickle = 0.003  # 1 kB at a time: some seconds
    with start(**of_hub(hub_of_the_demo, tmp_path)) as running:
        running.until(lambda: "fetching weights" in running.ask("/startupz")[1], 20, "fetching")
        assert running.ask("/livez")[0] == 200
        running.until(lambda: " GB" in running.ask("/readyz")[1], 20, "bytes")
        status, why = running.ask("/readyz")
        assert (status, "[-]started failed: fetching weights: " in why) == (503, True)
        progress = json.loads(running.ask("/startupz?format=json")[1])
        assert progress["phase"] == "fetching weights"
        assert progress["percent"] is not None
        hub_of_the_demo.trickle = 0.0
        running.until_ready(60)
        assert any(f"fetching {REPOSITORY}: " in line for line in running.messages())
        assert any("are complete in" in line for line in running.messages())


@pytest.mark.process
@pytest.mark.slow
def test_sigterm_while_weights_are_fetched_ends_with_0_and_leaves_no_process(
    start: Start, hub_of_the_demo: Hub, tmp_path: Path
) -> None:
    hub_of_the_demo.trickle = 0.1
    with start(**of_hub(hub_of_the_demo, tmp_path)) as running:
        running.until(lambda: any((tmp_path / "hub").rglob("*.part")), 30, "bytes")
        family = running.family()
        assert len(family) == 1
        running.stop()
        status, seconds = running.until_ended(10)
        assert status == 0
        assert seconds < 5
        assert running.last_exit()["sentence"] == "stopped before vLLM was started."
        assert not family[0].is_running()


@pytest.mark.process
@pytest.mark.slow
def test_a_fetch_that_brings_nothing_is_ended_as_stalled_and_one_that_cannot_begin_says_why(
    start: Start, hub_of_the_demo: Hub, tmp_path: Path
) -> None:
    hub_of_the_demo.trickle = 3600.0
    stalls = of_hub(hub_of_the_demo, tmp_path, DSV4_SUPERVISE_STALL_FETCHING_WEIGHTS="2")
    with start(**stalls) as running:
        assert running.until_ended(40)[0] == 84
        assert f"nothing of {REPOSITORY} came for 2 s" in running.last_exit()["sentence"]
    with start(**of_hub(hub_of_the_demo, tmp_path / "other", HF_HUB_OFFLINE="1")) as running:
        assert running.until_ended(40)[0] == 69
        assert "HF_HUB_OFFLINE is set" in running.last_exit()["sentence"]
