"""
Packs as artifacts of an OCI registry: pull by digest, push under a tag.

The distribution API needs six requests, so httpx does it; oras (0.2.42) brings requests and jsonschema, and reads
credentials in more ways than are needed here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from .. import plain_file
from ..errors import ConfigError, HostError, UsageError

SCHEME = "oci://"
DIGEST = re.compile("sha256:[0-9a-f]{64}")
TYPE = "application/vnd.dsv4.kernels.v1"
LAYER = f"{TYPE}.tar+xz"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = b"{}"
_REFERENCE = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(:\d+)?)/(?P<repository>[a-z0-9]+([._/-]+[a-z0-9]+)*)"
    r"(:(?P<tag>\w[\w.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_TIMEOUT = 60.0
_CHUNK = 1 << 20
_LARGEST_MANIFEST = 1 << 20
_LARGEST = 16 << 30


@dataclass(frozen=True)
class Reference:
    """`oci://HOST/REPOSITORY:TAG@DIGEST`; one of the last two may be missing."""

    host: str
    repository: str
    tag: str
    digest: str

    @property
    def url(self) -> str:
        """The repository in the registry's API; plain HTTP only to this machine, as Docker has it."""
        name = self.host.partition(":")[0]
        scheme = "http" if name in ("localhost", "127.0.0.1") else "https"
        return f"{scheme}://{self.host}/v2/{self.repository}"

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" * bool(self.tag), f"@{self.digest}" * bool(self.digest)
        return f"{SCHEME}{self.host}/{self.repository}{tag}{digest}"


def parse(text: str) -> Reference:
    """Return a reference; raise UsageError for a malformed one."""
    match = _REFERENCE.fullmatch(text)
    if not match or not (match["tag"] or match["digest"]):
        raise UsageError(
            f"{text!r} is not a reference; write oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:…."
        )
    return Reference(match["host"], match["repository"], match["tag"] or "", match["digest"] or "")


def is_pinned(text: str) -> bool:
    """Tell whether this is a reference with a digest."""
    match = _REFERENCE.fullmatch(text)
    return bool(match and match["digest"])


def pull(reference: Reference, file: IO[bytes]) -> None:
    """Write the pack of an artifact to a file; raise HostError or ConfigError where it is not what its digest says."""
    with _errors(reference), _client(reference, "pull") as client:
        url = f"{reference.url}/manifests/{reference.digest or reference.tag}"
        response, manifest = _small(client, url, reference, headers={"Accept": _MANIFEST})
        _expect(response, reference, 200)
        if reference.digest and _digest(manifest) != reference.digest:
            raise ConfigError(f"{reference}: the registry's answer does not have this digest.")
        layer = _layer(manifest, reference)
        with client.stream("GET", f"{reference.url}/blobs/{layer['digest']}") as blob:
            _expect(blob, reference, 200)
            found, size = hashlib.sha256(), 0
            for part in blob.iter_bytes(_CHUNK):
                size += len(part)
                if size > layer["size"]:
                    break
                found.update(part)
                file.write(part)
        if size != layer["size"] or f"sha256:{found.hexdigest()}" != layer["digest"]:
            raise ConfigError(f"{reference}: its layer does not have the digest and size of its manifest.")


def push(reference: Reference, path: Path, annotations: dict[str, str]) -> str:
    """Upload a pack under a tag, and return the digest that pins it."""
    if reference.digest or not reference.tag:
        raise UsageError(f"{reference}: a push needs a tag, and the digest follows from it.")
    with _errors(reference), _client(reference, "pull,push") as client:
        with plain_file.open_regular(path) as file:
            digest = sha256(file)
            size = file.tell()
            file.seek(0)
            _upload(client, reference, digest, size, file)
        _upload(client, reference, _digest(_EMPTY), len(_EMPTY), _EMPTY)
        empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": _digest(_EMPTY), "size": len(_EMPTY)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": TYPE,
            "config": empty,
            "layers": [{"mediaType": LAYER, "digest": digest, "size": size}],
            "annotations": annotations,
        }
        data = json.dumps(manifest, sort_keys=True).encode()
        url = f"{reference.url}/manifests/{reference.tag}"
        _expect(client.put(url, content=data, headers={"Content-Type": _MANIFEST}), reference, 201)
        return _digest(data)


def _upload(client: httpx.Client, reference: Reference, digest: str, size: int, body: IO[bytes] | bytes) -> None:
    if client.head(f"{reference.url}/blobs/{digest}").status_code == httpx.codes.OK:
        return
    begun = client.post(f"{reference.url}/blobs/uploads/")
    _expect(begun, reference, 202)
    url = httpx.URL(reference.url).join(begun.headers.get("location", "")).copy_merge_params({"digest": digest})
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    content = body if isinstance(body, bytes) else iter(lambda: body.read(_CHUNK), b"")
    _expect(client.put(url, content=content, headers=headers), reference, 201)


def _layer(data: bytes, reference: Reference) -> dict[str, Any]:
    try:
        manifest = plain_file.parse_json(data)
        [layer] = manifest["layers"]
        right = layer["mediaType"] == LAYER and DIGEST.fullmatch(layer["digest"]) and type(layer["size"]) is int
        found = {"digest": layer["digest"], "size": layer["size"]}
    except (ValueError, KeyError, TypeError):
        right, found = False, {"size": 0}
    if not right or not 0 < found["size"] <= _LARGEST:
        raise ConfigError(f"{reference} is not a kernel pack: it does not have exactly one layer of {LAYER}.")
    return found


@contextlib.contextmanager
def _client(reference: Reference, actions: str) -> Iterator[httpx.Client]:
    """Yield a client that is logged in, where the registry asks for that."""
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
        response, _ = _small(client, f"{reference.url.partition('/v2/')[0]}/v2/", reference)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            client.headers["Authorization"] = _authorization(client, reference, response, actions)
        yield client


def _authorization(client: httpx.Client, reference: Reference, response: httpx.Response, actions: str) -> str:
    challenge = response.headers.get("www-authenticate", "")
    basic = credentials(reference.host, os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker"))
    if challenge.lower().startswith("basic") and basic:
        return f"Basic {basic}"
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.get("realm", "")
    if not challenge.lower().startswith("bearer") or urlsplit(realm).scheme != urlsplit(reference.url).scheme:
        raise HostError(f"{reference}: the registry requires a login; log in with `docker login {reference.host}`.")
    scope = f"repository:{reference.repository}:{actions}"
    service = {"service": fields["service"]} if "service" in fields else {}
    headers = {"Authorization": f"Basic {basic}"} if basic else {}
    answer, body = _small(client, realm, reference, params={"scope": scope, **service}, headers=headers)
    _expect(answer, reference, 200)
    token = plain_file.parse_json(body)
    if not isinstance(token, dict):
        raise HostError(f"{reference}: the registry's token is malformed.")
    return f"Bearer {token.get('token') or token.get('access_token')}"


def _small(client: httpx.Client, url: str, reference: Reference, **more: Any) -> tuple[httpx.Response, bytes]:
    """Return the answer to a GET and its body; raise ConfigError for a body that is larger than any manifest."""
    with client.stream("GET", url, **more) as response:
        body = b""
        for part in response.iter_bytes(_CHUNK):
            body += part
            if len(body) > _LARGEST_MANIFEST:
                raise ConfigError(f"{reference}: {response.request.url.path} is larger than 1 MiB.")
        return response, body


def credentials(host: str, folder: str) -> str:
    """Return what `docker login` wrote for a registry, in base64; empty where it keeps them elsewhere."""
    try:
        config = plain_file.parse_json(plain_file.read(Path(folder, "config.json")))
        auth = config["auths"][host]["auth"]
        base64.b64decode(auth, validate=True)
        return str(auth)
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _expect(response: httpx.Response, reference: Reference, status: int) -> None:
    if response.status_code != status:
        raise HostError(
            f"{reference}: {response.request.method} {response.url.path} got status {response.status_code}."
        )


@contextlib.contextmanager
def _errors(reference: Reference) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise HostError(f"{reference} cannot be reached ({error or type(error).__name__}).") from None
    except ValueError as error:
        raise HostError(f"{reference}: the registry's answer is malformed ({error}).") from None
    except OSError as error:
        raise HostError(f"{reference}: {error.filename or 'a file'}: {error.strerror}.") from None


def sha256(file: IO[bytes]) -> str:
    """Return the digest of an open file, and leave it at its end."""
    found = hashlib.sha256()
    while part := file.read(_CHUNK):
        found.update(part)
    return f"sha256:{found.hexdigest()}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
