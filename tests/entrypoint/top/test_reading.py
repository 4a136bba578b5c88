"""What `dsv4 top` reads is what the health server answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.errors import ConfigError, HostError, UsageError
from dsv4_serve.entrypoint.top import reading, targets
from dsv4_serve.entrypoint.top.targets import TopTarget
from dsv4_serve.healthcheck import app
from dsv4_serve.healthcheck.state import Acceptance, Finding, Health, LastExit
from dsv4_serve.healthcheck.traffic import Traffic

HERE = TopTarget("here", "http://127.0.0.1:8001", cause="hung (exit status 83): no progress")


def server(health: Health, now: float = 100.0) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        scope = {
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        given = app.answer(health, now, scope)
        return httpx.Response(given.status, content=given.body)

    return httpx.MockTransport(answer)


@pytest.fixture
def ready() -> Health:
    health = Health(started=0.0, phase="ready", phase_began=90.0, progressed=100.0)
    health.engine, health.generated_after, health.ready_after = 17, 80.0, 90.0
    health.gate, health.corruption = Finding("91%"), Finding("8 of 8")
    health.plan = {"settings": {"served-model-name": {"value": ["demo"]}}, "choices": {}}
    return health


def test_a_ready_replica(ready: Health) -> None:
    found = reading.read(HERE, None, server(ready))
    assert (found.phase, found.ready, found.why, found.note) == ("ready", True, "", "")
    assert found.models == ("demo",)
    assert found.seconds_in_phase == 10.0
    assert (found.traffic, found.draft, found.cause) == (None, None, "")


def test_figures_and_the_last_exit(ready: Health) -> None:
    ready.traffic = Traffic(running=4, waiting=2, kv_usage=0.5, generated_rate=12.5)
    ready.floors = Floors(0.25, (0.5,))
    ready.live_acceptance = Acceptance(drafted=20, accepted=14, drafts=10, at=(9, 5))
    ready.last_exit = LastExit("engine-died", 82, "vLLM ended", "CUDA error")
    found = reading.read(HERE, None, server(ready))
    assert found.traffic
    assert (found.traffic.running, found.traffic.waiting, found.traffic.generated_rate) == (4, 2, 12.5)
    assert found.draft
    assert (found.draft.live, found.draft.floor, found.draft.drafted) == (0.7, 0.25, 20)
    assert [(row.live, row.floor) for row in found.draft.positions] == [(0.9, 0.5), (0.5, None)]
    assert found.cause == "engine-died (exit status 82): CUDA error"


def test_a_starting_replica_is_not_blamed(ready: Health) -> None:
    health = Health(started=0.0, phase="loading weights", phase_began=60.0, percent=43.0, detail="shard 3 of 35")
    health.engine = 17
    found = reading.read(HERE, None, server(health))
    assert (found.phase, found.ready, found.percent, found.step) == ("loading weights", False, 43.0, "shard 3 of 35")
    assert found.why == ""


def test_a_replica_that_lost_readiness_says_why(ready: Health) -> None:
    ready.draining = True
    assert "draining" in reading.read(HERE, None, server(ready)).why


@pytest.mark.parametrize(("key", "note"), [(None, "figures need the key"), ("wrong", "the key is not"), ("right", "")])
def test_the_key_opens_the_figures(ready: Health, key: str | None, note: str) -> None:
    ready.key = "right"
    found = reading.read(HERE, key, server(ready))
    assert found.ready
    assert found.note.startswith(note)
    assert bool(found.note) == bool(note)


def test_a_dead_replica_keeps_its_last_cause() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    found = reading.read(HERE, None, httpx.MockTransport(refuse))
    why = "nothing answers at http://127.0.0.1:8001 (Connection refused); is a replica running there?"
    assert (found.phase, found.why, found.cause) == (reading.NO_ANSWER, why, HERE.cause)


def test_a_password_in_an_address_is_not_shown() -> None:
    def silent(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    found = reading.read(TopTarget("a:1", "http://u:hunter2@a:1"), None, httpx.MockTransport(silent))
    assert found.why == "nothing answers at http://u:***@a:1 (refused); is a replica running there?"


@pytest.mark.parametrize(("part", "why"), [(b" " * (1 << 20), "more than 16 MiB"), (b"", "did not end within 0 s")])
def test_an_answer_without_an_end_is_none(monkeypatch: pytest.MonkeyPatch, part: bytes, why: str) -> None:
    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from itertools.repeat(part or b" ")

    monkeypatch.setattr(reading, "TIMEOUT", 300.0 if part else 0.0)
    found = reading.read(HERE, None, httpx.MockTransport(lambda _request: httpx.Response(200, stream=Endless())))
    assert why in found.why


def test_a_container_without_a_published_port_ends_nothing() -> None:
    found = reading.read(TopTarget("starts", "http://127.0.0.1:None"), None)
    assert found.phase == reading.NO_ANSWER


def test_another_server_is_named() -> None:
    found = reading.read(HERE, None, httpx.MockTransport(lambda _: httpx.Response(200, json={"hello": 1})))
    assert "not from the health server" in found.why


def test_addresses_and_the_key_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    found, key = targets.find(["http://a:1/", "http://a:1", "http://[::1]:2"], str(tmp_path / "key"), {})
    assert [one.url for one in found] == ["http://a:1", "http://[::1]:2"]
    assert key == "secret"
    with pytest.raises(UsageError, match="not an address"):
        targets.find(["ftp://a"], None, {})
    with pytest.raises(ConfigError, match="cannot read"):
        targets.find(["http://a"], str(tmp_path / "none"), {})


def container(name: str, *, running: bool = True, status: int = 0, role: str = "replica") -> Any:
    state = {"Running": running, "Status": "running" if running else "exited", "ExitCode": status}
    network = {"Ports": {"8001/tcp": [{"HostPort": "34567"}]}}
    attrs = {"State": state, "NetworkSettings": network}
    return SimpleNamespace(name=name, labels={"dsv4.role": role}, attrs=attrs)


def test_what_up_started_comes_before_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [container("r0"), container("r1", running=False, status=86), container("balancer", role="balancer")]
    engine = SimpleNamespace(ours=lambda: {one.name: one for one in made})
    monkeypatch.setattr(targets.daemon, "connect", lambda _: engine)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "api-key").write_text("theirs")
    found, key = targets.find([], None, {})
    assert [one.url for one in found] == ["http://127.0.0.1:34567", None]
    assert found[1].cause == "exit status 86 (corrupted); `dsv4 logs r1` shows why"
    assert key == "theirs"
    assert targets.find(["http://a:1"], None, {})[1] is None, "the key of `up` is for its own replicas"


def test_an_engine_of_another_host_does_not_hide_the_replica_of_this_one() -> None:
    found, _ = targets.find([], None, {"DOCKER_HOST": "tcp://elsewhere:2375"})
    assert [one.url for one in found] == ["http://localhost:8001"]


def test_the_replica_of_this_host_remembers_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> None:
        raise HostError("no engine")

    monkeypatch.setattr(targets.daemon, "connect", none)
    folder = tmp_path / "dsv4" / "9001"
    folder.mkdir(parents=True)
    (folder / "last-exit.json").write_text('{"cause": "hung", "status": 83, "sentence": "no progress", "root": ""}')
    [found], key = targets.find([], None, {"DSV4_HEALTH_PORT": "9001", "XDG_STATE_HOME": str(tmp_path)})
    assert (found.url, found.cause) == ("http://localhost:9001", "hung (exit status 83): no progress")
    assert key is None
