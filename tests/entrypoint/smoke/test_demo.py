"""`dsv4 smoke` on real vLLM: the demo's replica on this CPU, with its health server."""

import json

import pytest

from dsv4_serve.demo import server

UNFIT = {
    "thinking-chat",
    "thinking-high",
    "thinking-max",
    "thinking-stream",
    "empty-content",
    "tool-call",
    "json-schema",
}


@pytest.mark.slow
def test_the_demo_passes_what_it_can_do_and_the_rest_is_skipped_by_name(dsv4, demo_replica, tmp_path):
    health = f"http://{server.HOST}:{demo_replica.health_port}"
    done = dsv4("smoke", "--url", demo_replica.url, "--health", health, "--out", str(tmp_path), "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert {name for name, one in found.items() if one["verdict"] == "skipped"} == UNFIT | {"needles"}
    assert "100% of the answers is the same alone and 4 at once" in found["parallel"]["seen"]
    assert (
        found["acceptance"]["figures"]["prose"]["accepted"] > 0.9 * found["acceptance"]["figures"]["prose"]["drafted"]
    )
    assert sum(one["seconds"] for one in found.values()) < 30
    (receipt,) = (tmp_path / "smoke").iterdir()
    assert json.loads(receipt.read_text())["replica"]["versions"]["vllm"]
