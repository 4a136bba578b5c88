"""Real vLLM on this CPU, once for all tests: the demo's, which is sound, and one broken in every way that can be built."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client import http, local_replica
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.client.local_replica import ServeProcess
from tests.support.http_servers import http_servers
from tests.support.patience import slowness
from tests.support.program import environment
from tests.support.running_demo import Demo

START_SECONDS = 300.0


@contextmanager
def started(model: Path, log: Path, *flags: str, tree: Path | str = "") -> Iterator[ServeProcess]:
    """
    Start what `dsv4 explain` plans for the profile demo, without a supervisor whose own requests would be counted.

    `tree` holds a vLLM to use in place of the installed one.
    """
    port = local_replica.free_port()
    explain = ["-m", "dsv4_serve.entrypoint", "explain", "--format", "json", "--profile", "demo"]
    told = subprocess.run(
        [sys.executable, *explain, "--model", str(model), "--port", str(port), *flags],
        stdout=subprocess.PIPE,
        check=True,
    )
    plan = json.loads(told.stdout)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("vllm")), *plan["argv"][1:]],
            env={**environment(tree), **{name: value for name, value in plan["env"].items() if value != "***"}},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        running = ServeProcess(process, port, port, log)  # without a supervisor there is no other port
        wait(running)
        yield running
    finally:
        local_replica.stop(process)


def wait(running: ServeProcess) -> None:
    """Return when vLLM answers; fail with the cause that its log gives when it ends instead, or takes too long."""
    began = time.monotonic()
    while True:
        assert running.process.poll() is None, running.ended()
        assert time.monotonic() - began < START_SECONDS * slowness(), local_replica.tail(running.log)[-400:]
        try:
            http.get(f"{running.endpoint.url}/health", None)
        except Unreachable:
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="session")
def vllm(running_demo: Demo) -> Demo:
    """A server that is sound and drafts by n-grams."""
    return running_demo


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A demo server with NaN logits, n-grams too long to be found again, and room for long prefills in chunks of 16."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from dsv4_serve.demo import llama

    folder = tmp_path_factory.mktemp("broken")
    model = llama.write_checkpoint(folder / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = np.full_like(tensors["lm_head.weight"], np.nan)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    never = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1000, "prompt_lookup_max": 1000}
    long = ["--hf-overrides", '{"max_position_embeddings": 16384}', "--max-model-len", "16384"]
    flags = ["--speculative-config", json.dumps(never), "--max-num-batched-tokens", "16", *long]
    with started(model, folder / "log", *flags) as running:
        yield running


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], str]]:
    """Start a real HTTP server that gives one status and one body to everything, and return its URL."""
    with http_servers() as start:

        def answering(status: int, body: str) -> str:
            class Answering(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    text = body.replace("AUTHORIZATION", self.headers.get("Authorization", ""))
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(text.encode())

                def do_POST(self) -> None:
                    self.do_GET()

            return start(Answering)

        yield answering
