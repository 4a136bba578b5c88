"""A stand-in for the Hub: a real HTTP server with one repository, and the faults that a download meets."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REPOSITORY, COMMIT = "owner/model", "1" * 40
LARGE = os.urandom(24_000_000)


@dataclass
class Hub:
    """A Hub with one repository of one revision; `slow` seconds pass after each MiB."""

    files: dict[str, bytes]
    url: str = ""
    slow: float = 0.0
    error: tuple[int, str] | None = None
    cut: int = 0
    """After how many MiB a connection is broken, once."""
    ignores_ranges: bool = False
    short: int | None = None
    """Every answer of a large file ends after so many bytes, as if it were whole."""
    requests: int = 0
    trickle: float | None = None
    """Large files come in pieces of 1 kB, so many seconds apart."""
    busy: int = 0
    """So many requests for large files are answered with 503."""
    tokens: set[str | None] = field(default_factory=set)
    ranges: list[str] = field(default_factory=list)
    sent: int = 0


@functools.lru_cache(maxsize=32)  # every answer names those of all files
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.lru_cache(maxsize=32)
def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".gguf"))


class Server(ThreadingHTTPServer):
    """Speaks the few endpoints of the Hub that fetching needs."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        hub.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *words: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, api = urlsplit(self.path).path, f"/api/models/{REPOSITORY}"
        if self.server.hub.error:
            self.refuse(*self.server.hub.error)
        elif path.startswith(f"{api}/tree/"):
            self.send(200, json.dumps([node(p, d) for p, d in self.server.hub.files.items()]).encode())
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [sibling(p, d) for p, d in self.server.hub.files.items()]
            self.send(200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            self.file(path.split(f"/{COMMIT}/")[1])
        else:
            self.refuse(404, "RevisionNotFound" if path.startswith(api) else "RepoNotFound")

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code})

    def file(self, path: str) -> None:
        if path not in self.server.hub.files:
            self.refuse(404, "EntryNotFound")
            return
        data = self.server.hub.files[path]
        if is_large(path) and self.command == "GET" and self.server.hub.busy:
            self.server.hub.busy -= 1
            self.send(503, b"")
            return
        etag = sha256(data) if is_large(path) else git_id(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        byte_range, status = self.headers.get("Range"), 200
        self.server.hub.tokens.add(self.headers.get("Authorization"))
        if byte_range and self.command == "GET":
            self.server.hub.ranges.append(byte_range)
        if byte_range and self.command == "GET" and not self.server.hub.ignores_ranges:
            begin = int(byte_range.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            data, status = data[begin:], 206
        if self.server.hub.short is not None and is_large(path) and self.command == "GET":
            self.server.hub.requests += 1
            data = data[: self.server.hub.short]
        self.send(status, data, headers)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.hub.trickle is not None and len(data) > 1 << 20:
            with contextlib.suppress(OSError):
                for begin in range(0, len(data), 1000):
                    self.wfile.write(data[begin : begin + 1000])
                    time.sleep(self.server.hub.trickle)
            self.close_connection = True
            return
        for begin in range(0, len(data) if self.command == "GET" else 0, 1 << 20):
            self.wfile.write(data[begin : begin + (1 << 20)])
            self.server.hub.sent += 1 << 20
            if self.server.hub.cut and begin >= self.server.hub.cut << 20:
                self.server.hub.cut = 0
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            time.sleep(self.server.hub.slow)


def node(path: str, data: bytes) -> dict[str, object]:
    lfs = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    file = {"type": "file", "oid": git_id(data), "size": len(data), "path": path}
    return {**file, "lfs": lfs} if is_large(path) else file


def sibling(path: str, data: bytes) -> dict[str, object]:
    lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
    file = {"rfilename": path, "size": len(data), "blobId": git_id(data)}
    return {**file, "lfs": lfs} if is_large(path) else file


@contextlib.contextmanager
def hub_server(files: dict[str, bytes]) -> Iterator[Hub]:
    """Serve these files until the block ends."""
    state = Hub(files)
    with Server(state) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()
