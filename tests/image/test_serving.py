"""The CPU image serves: hardened as in production, and stopped as `docker stop` does."""

from __future__ import annotations

import time

import httpx
import pytest

from dsv4_serve.demo import llama

from .conftest import Container, podman

pytestmark = pytest.mark.slow
STOP_SECONDS = 60


@pytest.fixture(scope="module")
def served(container: Container) -> Container:
    container.until_healthy()
    return container


def test_it_answers_under_any_uid_on_a_read_only_root_without_capabilities(served):
    question = {
        "model": "demo",
        "messages": [{"role": "user", "content": llama.QUESTION}],
    }
    reply = httpx.post(f"{served.url}/v1/chat/completions", json=question, timeout=120, trust_env=False)
    assert reply.json()["choices"][0]["message"]["content"] == llama.ANSWER
    status = dict(
        line.split(":\t", 1) for line in served.run("cat", "/proc/1/status").stdout.splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == ["12345"] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")


def test_the_probe_of_the_image_finds_it_alive(served):
    podman("healthcheck", "run", served.name)


def test_stop_ends_it_in_time_and_with_status_0(served):
    began = time.monotonic()
    podman("stop", f"--time={STOP_SECONDS}", served.name)
    assert time.monotonic() - began < STOP_SECONDS
    assert served.state()["ExitCode"] == 0
