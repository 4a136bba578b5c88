"""Where packs come from: files, URLs and registries; what is not pinned, or is not what its digest says, is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from dsv4_serve.entrypoint.errors import ConfigError, HostError, UsageError
from dsv4_serve.entrypoint.kernel_packs import registry, source
from tests.support.http_servers import http_servers

PACK = b"a pack" * 1000
DIGEST = "sha256:" + hashlib.sha256(PACK).hexdigest()
WRONG = "sha256:" + "0" * 64


class Registry(BaseHTTPRequestHandler):
    """The part of a registry that packs use: bearer tokens, uploads, blobs behind a redirect, manifests."""

    blobs: ClassVar[dict[str, bytes]] = {}
    manifests: ClassVar[dict[str, bytes]] = {}
    logins: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        last = url.path.rsplit("/", 1)[-1]
        if url.path == "/token":
            self.logins.append(f"{self.headers.get('Authorization', '')} {parse_qs(url.query)['scope'][0]}")
            self.answer(200, json.dumps({"token": "t0k"}).encode())
        elif url.path.startswith("/storage/"):
            self.answer(200, self.blobs[last])
        elif self.headers.get("Authorization") != "Bearer t0k":
            host = self.headers["Host"]
            self.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{host}/token",service="s"'})
        elif "/manifests/" in url.path and last in self.manifests:
            self.answer(200, self.manifests[last])
        elif "/blobs/" in url.path and last in self.blobs:
            self.answer(307, b"", {"Location": f"/storage/{last}"})
        else:
            self.answer(200 if url.path == "/v2/" else 404, b"")

    def do_HEAD(self) -> None:
        self.answer(200 if self.path.rsplit("/", 1)[-1] in self.blobs else 404, b"")

    def do_POST(self) -> None:
        self.answer(202, b"", {"Location": "/v2/kernels/blobs/uploads/1?state=x"})

    def do_PUT(self) -> None:
        body, url = self.rfile.read(int(self.headers["Content-Length"])), urlsplit(self.path)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if "/manifests/" in url.path:
            self.manifests[url.path.rsplit("/", 1)[-1]] = self.manifests[digest] = body
        else:
            assert parse_qs(url.query) == {"state": ["x"], "digest": [digest]}
            self.blobs[digest] = body
        self.answer(201, b"")

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for stored in (Registry.blobs, Registry.manifests, Registry.logins):
        stored.clear()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with http_servers() as start:
        yield start(Registry).removeprefix("http://")


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "pack").write_bytes(PACK)
    return tmp_path / "pack"


def fetched(where: str, digest: str = "") -> bytes:
    with source.opened(where, digest) as (file, _):
        return file.read()


@pytest.mark.parametrize("where", ["/pack", "https://host/pack", "oci://host/kernels:tag"])
def test_what_nothing_pins_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="code that this host would run"):
        source.check_pin(where, "", unpinned=False)
    source.check_pin(where, "", unpinned=True)
    source.check_pin(where, DIGEST, unpinned=False)
    with pytest.raises(UsageError, match="is not a digest"):
        source.check_pin(where, "sha256:12", unpinned=True)


@pytest.mark.parametrize("where", ["", "ftp://host/pack", "s3://bucket/pack"])
def test_what_names_no_pack_is_refused_before_its_digest(where: str) -> None:
    with pytest.raises(UsageError, match="is not a file, an https:// URL, or an oci:// reference"):
        source.check_pin(where, "", unpinned=False)


def test_a_full_disk_under_a_download_is_not_standard_output(monkeypatch: pytest.MonkeyPatch, pack: Path) -> None:
    monkeypatch.setattr(source.tempfile, "TemporaryFile", lambda: io.FileIO("/dev/full", "r+"))
    with pytest.raises(HostError, match=r"cannot be copied to the folder of TMPDIR \(No space left on device\)"):
        fetched(str(pack), DIGEST)
    monkeypatch.setattr(source, "_download", lambda _url, file: file.write(PACK))
    with pytest.raises(HostError, match=r"cannot be copied to the folder of TMPDIR \(No space left on device\)"):
        fetched("https://host/pack")


def test_a_reference_with_a_digest_is_pinned() -> None:
    source.check_pin(f"oci://host/kernels@{DIGEST}", "", unpinned=False)
    with pytest.raises(UsageError, match="code that this host would run"):
        source.check_pin(f"https://host/kernels@{DIGEST}", "", unpinned=False)


def test_a_file_is_read_only_with_its_digest(pack: Path) -> None:
    assert fetched(str(pack), DIGEST) == PACK
    with pytest.raises(ConfigError, match="Nothing was read from it"):
        fetched(str(pack), WRONG)
    with pytest.raises(ConfigError, match="cannot be read"):
        fetched(str(pack.parent / "none"))
    with pytest.raises(ConfigError, match="cannot be read"):
        fetched(str(pack.parent))


def test_what_has_the_digest_is_what_is_read_whoever_writes_to_the_file(pack: Path) -> None:
    with source.opened(str(pack), DIGEST) as (file, _):
        pack.write_bytes(b"another pack")
        assert file.read() == PACK


def test_a_token_that_is_none(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setattr(registry.plain_file, "parse_json", lambda _: ["t0k"])
    with pytest.raises(HostError, match="token is malformed"):
        fetched(f"oci://{server}/kernels:v1")


def test_a_url_is_read_only_with_its_digest(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry.blobs["p"] = PACK
    assert fetched(f"http://{server}/storage/p", DIGEST) == PACK
    with pytest.raises(ConfigError, match="Nothing was read from it"):
        fetched(f"http://{server}/storage/p", WRONG)
    with pytest.raises(HostError, match="401"):
        fetched(f"http://{server}/none", DIGEST)
    monkeypatch.setattr(source, "LARGEST", 100)
    with pytest.raises(HostError, match="larger than"):
        fetched(f"http://{server}/storage/p", DIGEST)


def test_a_push_and_a_pull_by_the_digest_that_it_printed(server: str, pack: Path, tmp_path: Path) -> None:
    login = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {server: {"auth": login}}}))
    digest = registry.push(registry.parse(f"oci://{server}/kernels:v1"), pack, {"title": "x"})
    assert fetched(f"oci://{server}/kernels@{digest}") == PACK
    assert fetched(f"oci://{server}/kernels:v1", DIGEST) == PACK
    assert Registry.logins[0] == f"Basic {login} repository:kernels:pull,push"
    assert json.loads(Registry.manifests["v1"])["artifactType"] == registry.TYPE
    assert registry.push(registry.parse(f"oci://{server}/kernels:v2"), pack, {"title": "x"}) == digest


def pulled(server: str, manifest: Any, reference: str = ":v1") -> bytes:
    Registry.manifests["v1"] = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return fetched(f"oci://{server}/kernels{reference}")


def layer(digest: str = DIGEST, size: int = len(PACK), kind: str = registry.LAYER) -> dict[str, Any]:
    return {"layers": [{"mediaType": kind, "digest": digest, "size": size}]}


def test_a_registry_that_answers_something_else(server: str) -> None:
    Registry.blobs[DIGEST] = PACK
    assert pulled(server, layer()) == PACK
    for wrong in (layer(size=5), layer(size=len(PACK) + 1), layer(WRONG)):
        Registry.blobs[WRONG] = PACK
        with pytest.raises(ConfigError, match="does not have the digest and size"):
            pulled(server, wrong)
    bad: tuple[Any, ...] = (b"", b"[]", {}, {"layers": []}, {"layers": layer()["layers"] * 2}, layer(kind="x"))
    for wrong in (*bad, layer("sha256:../../x"), layer(size=1 << 60), layer(size=-1)):
        with pytest.raises(ConfigError, match="not a kernel pack"):
            pulled(server, wrong)
    with pytest.raises(ConfigError, match="larger than"):
        pulled(server, b" " * (1 << 21))
    Registry.manifests[WRONG] = json.dumps(layer()).encode()
    with pytest.raises(ConfigError, match="does not have this digest"):
        fetched(f"oci://{server}/kernels@{WRONG}")
    with pytest.raises(HostError, match="status 404"):
        fetched(f"oci://{server}/kernels:none")
    with pytest.raises(HostError, match="cannot be reached"):
        fetched("oci://127.0.0.1:1/kernels:v1")


def test_a_token_never_goes_to_a_realm_without_tls(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    reference = registry.Reference("registry.example", "kernels", "v1", "")
    response = registry.httpx.Response(401, headers={"www-authenticate": f'Bearer realm="http://{server}/token"'})
    with registry.httpx.Client() as client, pytest.raises(HostError, match="docker login"):
        registry._authorization(client, reference, response, "pull")
    assert Registry.logins == []


@pytest.mark.parametrize(
    "text",
    [
        "oci://host",
        "oci://host/kernels",
        "oci://host/../x:v1",
        "oci://host/UP:v1",
        "oci://host/kernels@sha256:12",
        "oci://user:pw@host/kernels:v1",
        "oci://host/k:v1/x",
    ],
)
def test_a_malformed_reference(text: str) -> None:
    with pytest.raises(UsageError, match="is not a reference"):
        registry.parse(text)
    assert not registry.is_pinned(text)


def test_only_this_machine_is_asked_without_tls() -> None:
    assert registry.parse("oci://localhost:5000/a/b:v1").url == "http://localhost:5000/v2/a/b"
    assert registry.parse("oci://localhost.example/a:v1").url == "https://localhost.example/v2/a"
    assert str(registry.parse(f"oci://h/a:v1@{DIGEST}")) == f"oci://h/a:v1@{DIGEST}"
