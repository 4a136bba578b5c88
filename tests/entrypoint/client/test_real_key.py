"""Real vLLM with a key: every route that it has needs the key, and our own clients go on working."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dsv4_serve.demo import llama
from dsv4_serve.entrypoint.client.local_replica import ServeProcess
from tests.support.vllm_servers import started

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
KEY = "s3cret-key"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("keyed")
    before = os.environ.get("VLLM_API_KEY")
    os.environ["VLLM_API_KEY"] = KEY
    try:
        with started(llama.write_checkpoint(folder / "model"), folder / "log") as running:
            yield running
    finally:
        os.environ.pop("VLLM_API_KEY") if before is None else os.environ.update(VLLM_API_KEY=before)


def test_every_route_of_vllm_needs_the_key(keyed: ServeProcess) -> None:
    url, key = keyed.endpoint.url, {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        described = client.get("/openapi.json", headers=key).json()["paths"]
        routes = [(method, path) for path, methods in described.items() for method in methods]
        assert {"/invocations", "/tokenize", "/version", "/load", "/v1/completions"} <= set(described)
        routes += [("get", "/metrics"), ("get", "/docs"), ("get", "/openapi.json"), ("get", "/redoc")]
        found = {(m, p) for m, p in routes if client.request(m, p, json={}).status_code != 401}
        assert {path for _, path in found} == {"/health", "/ping"}
        half_preflight = {"Access-Control-Request-Method": "GET"}  # without an origin, no preflight of a browser
        assert client.options("/metrics", headers=half_preflight).status_code == 401
        question = {"model": "demo", "prompt": "x", "max_tokens": 2}
        assert client.post("/invocations", json=question).status_code == 401
        assert client.post("/invocations", json=question, headers=key).status_code == 200
        assert client.get("/metrics", headers=key).status_code == 200


def test_smoke_asks_with_the_key(keyed: ServeProcess, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    words = ["smoke", "--url", keyed.endpoint.url, "--health", "none", "--api-key-file", str(tmp_path / "key")]
    argv = [sys.executable, "-m", "dsv4_serve.entrypoint", *words, "--out", str(tmp_path)]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    for name in ("models", "streaming", "logprobs", "acceptance"):  # the tiny model cannot chat; acceptance is /metrics
        assert f"passed       {name}\n" in run.stderr, run.stdout + run.stderr
