"""Real HTTP servers of one test, on free ports of the loopback."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Start = Callable[[type[BaseHTTPRequestHandler]], str]
"""Start a server with a handler, and return its URL."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a test may open many connections at once


@contextmanager
def http_servers(certificate: Path | None = None, key: Path | None = None) -> Iterator[Start]:
    """Yield a function that starts servers, which log nothing; all of them end with the block. A certificate: TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if context and certificate:
        context.load_cert_chain(certificate, key)
    with ExitStack() as running:

        def start(handler: type[BaseHTTPRequestHandler]) -> str:
            silent = type(handler.__name__, (handler,), {"log_message": lambda *_: None})
            server = running.enter_context(_Server(("127.0.0.1", 0), silent))
            if context:
                server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            running.callback(server.shutdown)
            return f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"

        yield start


def answer_json(handler: BaseHTTPRequestHandler, body: object, status: int = 200) -> None:
    """Answer a request with a JSON body."""
    text = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)
