"""What HAProxy lets through, to whom, and how: the shipped configuration before two replicas."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from dsv4_serve.entrypoint.containers.containers import STATUS_PORT
from dsv4_serve.entrypoint.containers.daemon import ROLE
from dsv4_serve.entrypoint.containers.observe import observe
from tests.deploy.pair import Pair
from tests.support import load
from tests.support.balancer import CONFIGURATION, KEY, Balancer, Names, balancer, free_port
from tests.support.patience import slowness, until

OPEN = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"]
MODEL = "/v1/models/stand-in"
CLOSED = [
    *("/", "/health", "/metrics", "/docs", "/openapi.json", "/ping", "/version", "/load", "/seen"),
    *("/invocations", "/collective_rpc", "/sleep", "/pause", "/abort_requests", "/update_weights", "/server_info"),
    *("/v1/load_lora_adapter", "/v1/embeddings", "/v1/realtime"),
    *(
        "/v1/models/",
        "/v1/models/../metrics",
        "/v1/models/a/../b",
        "/v1/models//a",
        "/v1/models/.",
        "/v1/models/a%2F..%2Fb",
    ),
    *("/v1/models/%2e%2e/metrics", "/v1/models/a%00", "/v1/models/a%2f/", "/v1/models/a%252fb"),
    *("/v1/messages/batches", "/v1/messages/", "/v1/messagesx", "/v1/models/" + "a" * 300),
    *("/v1/chat/completions/", "//v1/completions", "/v1/../invocations", "/v1/%63ompletions", "/V1/completions"),
]
EVERY = 5.0  # seconds within which a replica has noticed a client that hung up


def ask(client: httpx.Client, *, headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
    return client.post("/v1/completions", json={"prompt": "Once", "max_tokens": 2, **body}, headers=headers)


def raw(pair: Pair, path: str) -> bytes:
    """The answer to a path that no client library would send."""
    with socket.create_connection(("127.0.0.1", pair.balancer.port), timeout=60 * slowness()) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        return connection.recv(65536)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/metrics", "/nothing"])
@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", KEY])
def test_without_the_key_every_route_is_401_and_says_what_is_required(pair: Pair, path: str, given: str | None) -> None:
    with pair.balancer.client(None) as client:
        answer = client.get(path, headers={} if given is None else {"Authorization": given})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="dsv4"'
    assert "Authorization: Bearer KEY" in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", CLOSED)
def test_a_closed_route_is_404_with_the_key_and_reaches_no_replica(pair: Pair, path: str) -> None:
    answer = raw(pair, path)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"This route is closed" in answer


def test_open_routes_reach_a_replica(pair: Pair) -> None:
    with pair.balancer.client() as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "stand-in"
        for path in [*OPEN, "/tokenize", "/detokenize"]:
            assert "x-replica" in client.post(path, json={"max_tokens": 1}).headers


def test_every_route_that_is_open_is_one_of_vllm() -> None:
    vllm = importlib.util.find_spec("vllm")
    if vllm is None or vllm.origin is None:
        pytest.skip("vLLM is not installed")
    source = "".join(file.read_text() for file in Path(vllm.origin).parent.rglob("api_router.py"))
    lines = [line.split() for line in CONFIGURATION.read_text().splitlines()]
    paths = [path for words in lines if words[:1] == ["acl"] and words[2:3] == ["path"] for path in words[3:]]
    assert len(paths) == 9
    assert [path for path in paths if path != "/canary" and f'"{path}"' not in source] == []


def test_new_requests_go_to_the_replica_with_the_fewest(pair: Pair) -> None:
    with (
        pair.balancer.client() as client,
        client.stream("POST", "/v1/completions", json={"max_tokens": 600, "stream": True}) as long,
    ):
        used = [ask(client).headers["x-replica"] for _ in range(12)]
        assert long.headers["x-replica"] not in used


@pytest.mark.parametrize(
    "session",
    [
        {"headers": {"X-Session-ID": "a session"}},
        {"user": "a user"},
        {"prompt_cache_key": "a key", "user": "someone else each time"},
        {"prompt": "x" * 60_000, "user": "a user after much text"},
    ],
    ids=["header", "user", "prompt_cache_key", "60 kB"],
)
def test_a_session_stays_with_its_replica(pair: Pair, session: dict) -> None:
    with pair.balancer.client() as client:
        assert len({ask(client, **session).headers["x-replica"] for _ in range(12)}) == 1


def test_sessions_are_spread(pair: Pair) -> None:
    with pair.balancer.client() as client:
        used = Counter(ask(client, user=f"user {number}").headers["x-replica"] for number in range(60))
    assert min(used["127.0.0.2"], used["127.0.0.3"]) >= 15


def test_a_session_with_many_requests_at_once_uses_both_replicas(pair: Pair) -> None:
    outcomes = asyncio.run(load.at_once(pair.balancer.url, 10, 100, session="one for all"))
    used = Counter(outcome.replica for outcome in outcomes)
    assert [outcome.error for outcome in outcomes] == [""] * 10
    assert min(used["127.0.0.2"], used["127.0.0.3"]) >= 2
    assert max(used.values()) <= 8  # 1.5 times the mean of 5, rounded up


def test_a_body_that_is_not_json_is_left_to_the_replica(pair: Pair) -> None:
    with pair.balancer.client() as client:
        for body in (b"", b"{", b'{"user": 1}', b'{"user": {}}', b"[]"):
            answer = client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (200, 500)
            assert answer.status_code == 200 or answer.text == "Internal Server Error"


@pytest.mark.process
@pytest.mark.slow
def test_200_streams_at_once_are_all_whole(pair: Pair) -> None:
    outcomes = asyncio.run(load.at_once(pair.balancer.url, 200, 20))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert min(Counter(outcome.replica for outcome in outcomes).values()) >= 50


@pytest.mark.parametrize("session", [{}, {"X-Session-ID": "long"}])
def test_a_prompt_of_10_mb_arrives_whole(pair: Pair, session: dict[str, str]) -> None:
    body = json.dumps({"prompt": "x" * 10_000_000, "max_tokens": 1, "user": "behind the prompt"}).encode()
    with pair.balancer.client() as client:
        answer = client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"} | session)
    assert answer.status_code == 200
    assert pair.seen(answer.headers["x-replica"])["most_bytes"] == len(body)


def test_a_slow_client_is_served(pair: Pair) -> None:
    answer = load.slow(pair.balancer.port, tokens=20)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"[DONE]" in answer


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_stops_its_generation(pair: Pair, stream: bool) -> None:
    before = sum(pair.seen(address)["hung_up"] for address in pair.names.running)
    body = {"max_tokens": 5000, "stream": stream}
    with (
        contextlib.suppress(httpx.ReadTimeout),
        pair.balancer.client(timeout=slowness(5)) as client,
        client.stream("POST", "/v1/completions", json=body) as answer,
    ):
        next(answer.iter_lines())
    assert until(lambda: sum(pair.seen(address)["hung_up"] for address in pair.names.running) == before + 1, EVERY)


@pytest.mark.process
@pytest.mark.slow
def test_what_is_too_much_for_the_replicas_waits_and_then_gets_503(pair: Pair, tmp_path: Path, binary: str) -> None:
    few = {"REPLICA_MAXCONN": "1", "QUEUE_TIMEOUT": "2s"}  # 20 tokens take 0.4 s, 400 take 8
    with balancer(tmp_path, pair.names, binary=binary, **ports(pair), **few) as narrow:
        assert until(lambda: narrow.up() == {"127.0.0.2", "127.0.0.3"}, 10)
        waited = asyncio.run(load.at_once(narrow.url, 4, 20))
        assert [outcome.error for outcome in waited] == [""] * 4
        refused = [outcome.error for outcome in asyncio.run(load.at_once(narrow.url, 4, 400)) if outcome.error]
        assert len(refused) == 2
        assert all("503" in error and "busy for too long" in error for error in refused)


def test_without_any_replica_the_answer_is_503_with_when_to_come_back(tmp_path: Path, binary: str) -> None:
    with balancer(tmp_path, Names(), binary=binary) as alone, alone.client() as client:
        answer = client.get("/v1/models")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "No replica is ready" in answer.json()["error"]["message"]
        assert httpx.get(f"http://127.0.0.1:{alone.status_port}/readyz", trust_env=False).status_code == 503


def test_sigusr1_finishes_running_streams_and_takes_no_new_ones(pair: Pair, tmp_path: Path, binary: str) -> None:
    with balancer(tmp_path, pair.names, binary=binary, **ports(pair)) as leaving:
        assert until(lambda: leaving.up() == {"127.0.0.2", "127.0.0.3"}, 10)
        with (
            leaving.client() as client,
            client.stream("POST", "/v1/completions", json={"max_tokens": 150, "stream": True}) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            assert until(lambda: soft_stopped(leaving), 5)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        leaving.process.wait(10 * slowness())


def soft_stopped(front: Balancer) -> bool:
    """
    Send SIGUSR1, and return whether new connections are refused.

    Again each time: the master process of HAProxy 2.6 executes itself once more after it has started its worker, and loses
    a SIGUSR1 that comes meanwhile, which takes 20 ms on an idle machine.
    """
    front.process.send_signal(signal.SIGUSR1)
    return refuses(front.port)


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def ports(pair: Pair) -> dict[str, str]:
    """Variables for a second balancer before the same replicas."""
    return {"REPLICA_PORT": str(pair.port), "REPLICA_HEALTH_PORT": str(pair.health_port)}


def test_an_administrator_can_take_a_replica_out(pair: Pair) -> None:
    rows = [line.split() for line in pair.balancer.tell("show servers state replicas").splitlines()[2:] if line]
    name = next(row[3] for row in rows if row[4] == "127.0.0.2")
    pair.balancer.tell(f"set server replicas/{name} state drain")
    try:
        with pair.balancer.client() as client:
            assert {ask(client).headers["x-replica"] for _ in range(6)} == {"127.0.0.3"}
    finally:
        pair.balancer.tell(f"set server replicas/{name} state ready")


def test_prometheus_reads_what_the_balancer_counts(pair: Pair) -> None:
    text = pair.balancer.metrics()
    for name in ("haproxy_server_current_sessions", "haproxy_server_status", "haproxy_backend_current_queue"):
        assert f'{name}{{proxy="replicas"' in text
    url = f"http://127.0.0.1:{pair.balancer.status_port}/readyz"
    assert httpx.get(url, trust_env=False).status_code == 200


def test_dsv4_up_and_status_see_at_the_balancer_whether_a_replica_is_ready(
    pair: Pair, tmp_path: Path, binary: str
) -> None:
    def seen(status_port: int) -> tuple[bool, bool, str]:
        state = {"Status": "running", "StartedAt": "2026-11-30T04:00:00Z", "Running": True, "ExitCode": 0}
        ports = {"Ports": {f"{STATUS_PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(status_port)}]}}
        attributes = {"State": state, "NetworkSettings": ports}
        found = observe(SimpleNamespace(name="dsv4-balancer", labels={ROLE: "balancer"}, attrs=attributes))
        return found.answers, found.ready, found.detail

    assert seen(pair.balancer.status_port) == (True, True, "")
    with balancer(tmp_path, Names(), binary=binary) as alone:
        assert seen(alone.status_port) == (True, False, "no replica is ready")


@pytest.mark.parametrize("content", [None, "", "# no key\n"])
def test_a_key_file_without_a_key_is_named_and_nothing_listens(
    binary: str, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "none").write_text(content)
    env = {
        "API_KEY_FILE": str(tmp_path / "none"),
        "BALANCER_SOCKET": str(tmp_path / "s"),
        "BALANCER_PORT": str(free_port()),
    }
    done = subprocess.run([binary, "-c", "-f", CONFIGURATION], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr


def test_the_configuration_gives_no_warning(binary: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    env = {"API_KEY_FILE": str(tmp_path / "key"), "BALANCER_SOCKET": str(tmp_path / "s")}
    argv = [binary, "-c", "-dW", "-f", CONFIGURATION]  # -dW: a warning is an error
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
