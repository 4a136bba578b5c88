"""Real vLLM with a key and without our patches: every route needs the key, and our own clients go on working."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.patience import slowness
from tests.support.replica import Replica
from tests.support.running_demo import NAME

pytestmark = pytest.mark.slow
OF_VLLM = ("tool-truncated", "tool-ref")
"""Faults of vLLM 0.32.0 itself, which this replica runs without our patches."""
ELSEWHERE = ("thinking-high", "thinking-max", "thinking-stream", "tool-stream", "json-schema", "parallel", "acceptance")
"""Checks that tests/demo/test_cli.py makes on real vLLM as well, where they pass with our patches."""


@pytest.fixture
def key_file(keyed_demo: Replica) -> Path:
    keyed_demo.until_ready()
    return keyed_demo.log.parent / "secrets/api-key"


def test_every_route_of_vllm_needs_the_key(keyed_demo: Replica, key_file: Path) -> None:
    url, key = f"http://127.0.0.1:{keyed_demo.port}", {"Authorization": f"Bearer {key_file.read_text().strip()}"}
    with httpx.Client(base_url=url, trust_env=False, timeout=60 * slowness()) as client:
        described = client.get("/openapi.json", headers=key).json()["paths"]
        routes = [(method, path) for path, methods in described.items() for method in methods]
        assert {"/invocations", "/tokenize", "/version", "/load", "/v1/completions"} <= set(described)
        routes += [("get", "/metrics"), ("get", "/docs"), ("get", "/openapi.json"), ("get", "/redoc")]
        found = {(m, p) for m, p in routes if client.request(m, p, json={}).status_code != 401}
        assert {path for _, path in found} == {"/health", "/ping"}
        half_preflight = {"Access-Control-Request-Method": "GET"}  # without an origin, no preflight of a browser
        assert client.options("/metrics", headers=half_preflight).status_code == 401
        question = {"model": NAME, "prompt": "x", "max_tokens": 2}
        assert client.post("/invocations", json=question).status_code == 401
        assert client.post("/invocations", json=question, headers=key).status_code == 200
        assert client.get("/metrics", headers=key).status_code == 200


def test_smoke_asks_with_the_key_and_finds_the_faults_of_unpatched_vllm(
    keyed_demo: Replica, key_file: Path, tmp_path: Path
) -> None:
    where = ["--url", f"http://127.0.0.1:{keyed_demo.port}", "--health", f"http://127.0.0.1:{keyed_demo.health_port}"]
    args = [
        "smoke",
        *where,
        "--api-key-file",
        str(key_file),
        "--out",
        str(tmp_path),
        "--format",
        "json",
        "--timeout",
        "900",
        *(word for name in ELSEWHERE for word in ("--skip", name)),
    ]
    argv = [sys.executable, "-m", "dsv4_serve.entrypoint", *args]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1000)
    assert run.returncode == 1, run.stdout + run.stderr
    found = {one["name"]: one["verdict"] for one in json.loads(run.stdout)["checks"]}
    assert {name: verdict for name, verdict in found.items() if verdict != "passed"} == {
        **dict.fromkeys(("needles", "tool-gaps", "tool-tags", "tool-parallel", *ELSEWHERE), "skipped"),
        **dict.fromkeys(OF_VLLM, "failed"),
    }
