"""The key file of the balancer: its rules, its limits, and how it changes while HAProxy runs."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.balancer import CONFIGURATION, Balancer, Names, balancer
from tests.support.key_files import REFUSED, TAKEN
from tests.support.patience import slowness, until

pytestmark = [pytest.mark.process, pytest.mark.slow]

ALICE, ALICE_2, BOB, EVE = "a1b2c3d4e5f6a7b8c9", "new-key-of-alice-2026", "bobs-own-key-0123456", "eves-key-0123456789"
FILE = f"# team\nalice {ALICE} - 1\nalice {ALICE_2} - 1\nbob {BOB} 3\neve {EVE}\n"
PROMPT = "/v1/completions"


class Handler(http.server.BaseHTTPRequestHandler):
    """A replica: ready, and a stream of a byte every 20 ms for the seconds that the body names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        with contextlib.suppress(OSError):
            self.end_headers()

    def do_POST(self) -> None:
        seconds = float(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(int(seconds * 50)):
                self.wfile.write(b"1\r\nx\r\n")
                time.sleep(0.02)
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def front(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """A balancer with a key file, before one replica."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(FILE)
    server = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names, port = Names(), str(server.server_port)
    names.running = ["127.0.0.2"]
    env = {"API_KEY_FILE": str(folder / "keys"), "REPLICA_PORT": port, "REPLICA_HEALTH_PORT": port}
    with balancer(folder, names, binary=binary, **env) as running:
        assert until(lambda: running.up() == {"127.0.0.2"}, 20)
        yield running
    server.shutdown()
    server.server_close()


@pytest.fixture
def keys(front: Balancer) -> Iterator[Path]:
    """The key file, which is as it was again afterwards."""
    file = front.log.parent / "keys"
    yield file
    file.write_text(FILE)
    assert until(lambda: code(front, ALICE) == 200, 10)


def code(front: Balancer, key: str, path: str = "/v1/models") -> int:
    return httpx.get(f"{front.url}{path}", headers={"x-api-key": key}, trust_env=False).status_code


def ask(front: Balancer, key: str, path: str = PROMPT, seconds: float = 0) -> httpx.Response:
    return httpx.post(f"{front.url}{path}", content=str(seconds), headers={"x-api-key": key}, trust_env=False)


@contextlib.contextmanager
def stream(front: Balancer, key: str, seconds: float) -> Iterator[http.client.HTTPResponse]:
    """A stream whose first byte has come; its client goes away at the end of the block."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30 * slowness())
    connection.request("POST", PROMPT, str(seconds), {"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read(1)
    try:
        yield answer
    finally:
        connection.close()
        answer.close()


def checked(binary: str, file: Path) -> subprocess.CompletedProcess[str]:
    env = {"API_KEY_FILE": str(file), "BALANCER_SOCKET": str(file.parent / "s")}
    return subprocess.run([binary, "-c", "-f", CONFIGURATION], env=env, capture_output=True, text=True, check=False)


def test_haproxy_takes_the_files_that_dsv4_takes_and_refuses_the_others(binary: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for data, _ in TAKEN:
        file.write_bytes(data)
        assert checked(binary, file).returncode == 0, data
    for data, why in REFUSED:
        file.write_bytes(data)
        done = checked(binary, file)
        assert done.returncode == 1, data
        assert re.search(f"API_KEY_FILE {file}: .*({why})", done.stderr), (data, done.stderr)
        assert "geheim" not in done.stderr


def header_sets(key: str) -> dict[str, list[str]]:
    return {
        "bearer": [f"Authorization: Bearer {key}"],
        "small bearer": [f"authorization: bearer {key}"],
        "x-api-key": [f"X-API-Key: \t{key} "],
        "both the same": [f"Authorization: Bearer {key}", f"x-api-key: {key}"],
    }


def raw(front: Balancer, headers: list[str], path: str = "/v1/models") -> int:
    with socket.create_connection(("127.0.0.1", front.port), timeout=10 * slowness()) as connection:
        connection.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode("latin-1"))
        return int(connection.recv(65536).split()[1])


def test_where_a_key_may_stand(front: Balancer) -> None:
    assert {name: raw(front, headers) for name, headers in header_sets(EVE).items()} == dict.fromkeys(
        header_sets(""), 200
    )
    refused = [
        *header_sets("eve").values(),
        *header_sets(EVE + "x").values(),
        *header_sets(EVE[:-1]).values(),
        *header_sets(f"{EVE},{BOB}").values(),
        *header_sets(EVE.upper()).values(),
        [f"Authorization: Bearer {EVE}", f"x-api-key: {BOB}"],
        [f"Authorization: Bearer {EVE}", f"Authorization: Bearer {EVE}"],
        [f"x-api-key: {EVE}", f"x-api-key: {EVE}"],
        [f"x-api-key: {EVE}", "x-api-key: "],
        [f"Authorization: Basic {EVE}", f"x-api-key: {EVE}"],
        [f"Authorization: {EVE}"],
        [f"Authorization: Bearer  {EVE}"],
        [f"x-api-key: Bearer {EVE}"],
        [f"x_api_key: {EVE}"],
        [f"Cookie: x-api-key={EVE}"],
        [f"Proxy-Authorization: Bearer {EVE}"],
    ]
    assert [headers for headers in refused if raw(front, headers) != 401] == []
    assert raw(front, [], f"/v1/models?api_key={EVE}&key={EVE}") == 401


def test_requests_a_minute(front: Balancer) -> None:
    assert [ask(front, BOB).status_code for _ in range(3)] == [200] * 3
    refused = ask(front, BOB)
    assert refused.status_code == 429
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    message = f"This key may send 3 requests a minute. Retry in {refused.headers['retry-after']} s."
    shape = {"message": message, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    assert refused.json() == {"error": shape}
    refused = ask(front, BOB, "/v1/messages")
    assert refused.status_code == 429
    assert (refused.json()["type"], refused.json()["error"]["type"]) == ("error", "rate_limit_error")
    assert [ask(front, EVE).status_code for _ in range(9)] == [200] * 9
    assert code(front, BOB, "/closed") == 404
    metrics = httpx.get(f"http://127.0.0.1:{front.status_port}/keys", trust_env=False).text
    assert 'dsv4_balancer_key_requests_total{name="bob"} 3\n' in metrics
    assert 'dsv4_balancer_key_refused_total{name="bob",limit="requests"} 2\n' in metrics


def test_concurrent_requests_and_a_client_that_goes_away(front: Balancer) -> None:
    with stream(front, ALICE, 60), stream(front, EVE, 1) as other:
        refused = ask(front, ALICE_2)  # the same name
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert json.loads(refused.text)["error"]["message"] == "This key may send 1 request at once. Retry in 1 s."
        assert len(other.read()) == 49
    assert until(lambda: ask(front, ALICE_2).status_code == 200, 5)


def test_keys_come_and_go_while_a_stream_runs(front: Balancer, keys: Path) -> None:
    pid = front.process.pid
    with stream(front, ALICE, 6) as running:
        keys.write_text(FILE.replace(f"alice {ALICE} - 1\n", "") + "mallory mallorys-key-0123456\n")
        assert until(lambda: code(front, "mallorys-key-0123456") == 200, 10)
        assert until(lambda: code(front, ALICE) == 401, 10)
        assert len(running.read()) == 299  # the withdrawn key's stream is whole
    assert (front.process.pid, front.process.poll()) == (pid, None)


def test_a_secret_that_kubernetes_swaps(front: Balancer, keys: Path) -> None:
    swapped = keys.parent / "swapped"
    swapped.write_text(FILE + "mallory mallorys-key-0123456\n")
    (keys.parent / "link").symlink_to(swapped)
    (keys.parent / "link").rename(keys)
    assert until(lambda: code(front, "mallorys-key-0123456") == 200, 10)
    keys.unlink()


@pytest.mark.parametrize("broken", ["", "alice geheim-1\n", FILE + f"dora {EVE}\n", None])
def test_a_change_that_is_not_valid_keeps_the_keys(front: Balancer, keys: Path, broken: str | None) -> None:
    before = front.log.read_text().count("KEY FILE NOT VALID")
    if broken is None:
        keys.unlink()
    else:
        keys.write_text(broken)
    assert until(lambda: front.log.read_text().count("KEY FILE NOT VALID") > before, 10)
    time.sleep(1.5)  # another look
    assert front.log.read_text().count("KEY FILE NOT VALID") == before + 1
    assert code(front, EVE) == 200


def test_the_log_has_names_and_no_keys(front: Balancer) -> None:
    raw(front, [f"Authorization: Bearer {EVE}"], "/v1/models?key=geheim")
    raw(front, ["x-api-key: geheim"])
    assert until(lambda: ' eve "GET /v1/models HTTP/1.1"' in front.log.read_text(), 5)
    log = front.log.read_text()
    assert [key for key in (ALICE, ALICE_2, BOB, EVE, "geheim") if key in log] == []
