"""Finding the container engine of a host."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from dsv4_serve.entrypoint.containers import daemon as engines
from dsv4_serve.entrypoint.errors import ConfigError, HostError


@pytest.fixture
def engine(tmp_path):
    """A socket at which something answers /version with the name of its engine, and refuses all else."""

    class Answers(BaseHTTPRequestHandler):
        server: Server

        def do_GET(self):
            known = self.path.endswith("/version")
            body = (
                {"ApiVersion": "1.41", "Components": [{"Name": self.server.name}]} if known else {"message": "no  such"}
            )
            text = json.dumps(body).encode()
            self.send_response(200 if known else 500)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text)

        def address_string(self):
            return "local"

        def log_message(self, *args):
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        name = "Engine"
        daemon_threads = True

    with Server(str(tmp_path / "engine.sock"), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_host_without_an_engine_reads_where_was_looked_and_what_names_another(tmp_path, monkeypatch):
    paths = [tmp_path / "docker.sock", tmp_path / "podman.sock"]
    monkeypatch.setattr(engines, "sockets", lambda environ: paths)
    with pytest.raises(HostError) as caught:
        engines.connect({})
    for word in (*map(str, paths), "DOCKER_HOST"):
        assert word in str(caught.value)


def test_podmans_socket_of_this_user_is_looked_for():
    assert "/run/user/7/podman/podman.sock" in map(str, engines.sockets({"XDG_RUNTIME_DIR": "/run/user/7"}))


def test_the_first_socket_that_is_there_is_taken(engine, tmp_path, monkeypatch):
    (tmp_path / "a-file").touch()
    monkeypatch.setattr(
        engines, "sockets", lambda environ: [tmp_path / "none", tmp_path / "a-file", tmp_path / "engine.sock"]
    )
    assert engines.connect({}).socket == f"unix://{tmp_path}/engine.sock"


@pytest.mark.parametrize(("name", "podman"), [("Engine", False), ("Podman Engine", True)])
def test_docker_and_podman_are_distinguished(engine, name, podman):
    engine.name = name
    assert engines.connect({"DOCKER_HOST": f"unix://{engine.server_address}"}).podman is podman


def test_a_socket_at_which_nothing_answers_is_named(tmp_path):
    with pytest.raises(
        HostError, match=rf"No container engine answers on unix://{tmp_path}/none \(no such file or directory\);"
    ):
        engines.connect({"DOCKER_HOST": f"unix://{tmp_path}/none"})


@pytest.mark.parametrize("named", ["tcp://10.0.0.1:2375", "ssh://me@there"])
def test_an_engine_on_another_host_is_refused(named):
    with pytest.raises(ConfigError, match="DOCKER_HOST is .*unix://PATH"):
        engines.connect({"DOCKER_HOST": named})


def test_a_refusal_of_the_engine_is_reported_in_one_sentence(engine):
    found = engines.connect({"DOCKER_HOST": f"unix://{engine.server_address}"})
    with pytest.raises(HostError, match=r"^The containers cannot be listed: no such\.$"):
        found.containers()
