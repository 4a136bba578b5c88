"""The balancer with a certificate: HTTP/1.1 and HTTP/2, no plain HTTP, streams as without, a new certificate in between."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.pair import Pair
from tests.deploy.test_balancer import ports
from tests.support.balancer import KEY, Balancer, Names, balancer
from tests.support.patience import slowness, until
from tests.support.program import need


@dataclass
class Secured:
    """A balancer with a certificate."""

    front: Balancer
    certificate: Path

    def connect(self, *protocols: str) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.set_alpn_protocols(protocols)
        return context.wrap_socket(
            socket.create_connection(("127.0.0.1", self.front.port), 10), server_hostname="localhost"
        )

    def curl(self, *words: str, path: str = "/v1/completions", key: str = KEY) -> str:
        url = f"https://localhost:{self.front.port}{path}"
        argv = [
            need("curl", "CURL"),
            "-sS",
            "--cacert",
            str(self.certificate),
            "-H",
            f"Authorization: Bearer {key}",
            *words,
            url,
        ]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60 * slowness(), check=True).stdout

    def name(self) -> str:
        """The common name of the certificate that new connections get, whoever signed it."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.front.port))
        argv = [need("openssl", "OPENSSL"), "x509", "-noout", "-subject"]
        return (
            subprocess.run(argv, input=pem, capture_output=True, text=True, check=True)
            .stdout.rpartition("=")[2]
            .strip()
        )


def sign(folder: Path, name: str = "first") -> None:
    """Write tls.crt and tls.key, as a secret of Kubernetes has them."""
    subprocess.run(
        [
            *(
                need("openssl", "OPENSSL"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"), "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"),
        ],
        capture_output=True,
        check=True,
    )


@pytest.fixture(scope="module")
def secured(pair: Pair, tmp_path_factory: pytest.TempPathFactory, binary: str) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    sign(folder)
    env = {"BALANCER_CERTIFICATE": str(folder / "tls.crt"), **ports(pair)}
    with balancer(folder, pair.names, binary=binary, **env) as front:
        assert until(lambda: front.up() == {"127.0.0.2", "127.0.0.3"}, 20)
        yield Secured(front, folder / "tls.crt")


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (["x"], None)])
def test_the_protocol_is_agreed_upon(secured: Secured, offered: list[str], chosen: str | None) -> None:
    with secured.connect(*offered) as connection:
        assert connection.selected_alpn_protocol() == chosen
        assert connection.version() == "TLSv1.3"


def test_old_versions_of_tls_are_refused(secured: Secured) -> None:
    for version in ("-tls1", "-tls1_1"):
        argv = [
            "openssl",
            "s_client",
            version,
            "-cipher",
            "ALL@SECLEVEL=0",
            "-connect",
            f"127.0.0.1:{secured.front.port}",
        ]
        assert subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0


def test_plain_http_gets_no_answer(secured: Secured) -> None:
    with socket.create_connection(("127.0.0.1", secured.front.port), 10) as connection, contextlib.suppress(OSError):
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        assert connection.recv(100) == b""


@pytest.mark.parametrize("protocol", ["--http2", "--http1.1"])
def test_a_stream_arrives_token_by_token(secured: Secured, protocol: str) -> None:
    body = json.dumps({"max_tokens": 100, "stream": True})
    url = f"https://localhost:{secured.front.port}/v1/completions"
    argv = [
        need("curl", "CURL"),
        "-sSN",
        protocol,
        "-D",
        "/dev/stderr",
        "--cacert",
        str(secured.certificate),
        "-d",
        body,
        url,
    ]
    argv += ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        times = [(time.monotonic(), line) for line in client.stdout if line.startswith("data: ")]
        head = client.stderr.read()
    assert head.startswith("HTTP/2 200" if protocol == "--http2" else "HTTP/1.1 200")
    assert (len(times), times[-1][1]) == (101, "data: [DONE]\n")
    assert times[-1][0] - times[0][0] > 0.5  # 100 tokens of 10 ms


def test_errors_over_http2(secured: Secured) -> None:
    wrong = ("--http2", "-w", " %{http_code} %{http_version}")
    assert secured.curl(*wrong, "-X", "DELETE").endswith(" 405 2")
    assert secured.curl(*wrong, path="/metrics").endswith(" 404 2")
    assert secured.curl(*wrong, path="/v1/messages", key="wrong").endswith(" 401 2")


@pytest.mark.process
@pytest.mark.slow
def test_a_new_certificate_is_served_after_a_reload_and_streams_go_on(secured: Secured) -> None:
    with stream_of(secured, 300) as lines:
        assert secured.name() == "first"
        sign(secured.certificate.parent, "second")
        secured.front.process.send_signal(signal.SIGUSR2)
        assert until(lambda: secured.name() == "second", 10)
        assert lines()[-1] == "data: [DONE]"


@pytest.mark.process
@pytest.mark.slow
def test_a_new_certificate_by_the_socket_needs_no_reload(pair: Pair, tmp_path: Path, binary: str) -> None:
    sign(tmp_path)
    env = {"BALANCER_CERTIFICATE": str(tmp_path / "tls.crt"), **ports(pair)}
    with balancer(tmp_path, pair.names, binary=binary, **env) as front:
        assert until(lambda: front.up() == {"127.0.0.2", "127.0.0.3"}, 20)
        here = Secured(front, tmp_path / "tls.crt")
        with stream_of(here, 100) as lines:
            sign(tmp_path, "second")
            pem = (tmp_path / "tls.crt").read_text() + (tmp_path / "tls.key").read_text()
            front.tell(f"set ssl cert {here.certificate} <<\n{pem}")
            assert "Success" in front.tell(f"commit ssl cert {here.certificate}")
            assert here.name() == "second"
            assert lines()[-1] == "data: [DONE]"


@contextlib.contextmanager
def stream_of(secured: Secured, tokens: int) -> Iterator[Callable[[], list[str]]]:
    """A stream that has begun; call what it yields to read it to its end."""
    context = ssl.create_default_context(cafile=str(secured.certificate))
    connection = http.client.HTTPSConnection("localhost", secured.front.port, timeout=60 * slowness(), context=context)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps({"max_tokens": tokens, "stream": True}), headers)
    answer = connection.getresponse()
    answer.readline()
    yield lambda: [line.decode().strip() for line in answer if line.strip()]
    connection.close()


@pytest.mark.process
@pytest.mark.slow
def test_connections_that_do_not_finish_the_handshake_are_closed(secured: Secured, binary: str) -> None:
    version = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    if version < "3":
        pytest.skip("HAProxy before 3.0 has no timeout of its own for the handshake")
    with socket.create_connection(("127.0.0.1", secured.front.port), 30 * slowness()) as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        assert time.monotonic() - began < 10 * slowness()


def test_a_certificate_that_cannot_be_read_is_named(binary: str, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="none.pem"),
        balancer(tmp_path, Names(), binary=binary, BALANCER_CERTIFICATE=str(tmp_path / "none.pem")),
    ):
        pass
