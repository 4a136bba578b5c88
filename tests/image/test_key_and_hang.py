"""The image with a key, started as README.md prints it, under any uid: who is let in, and the stacks of an engine that hangs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dsv4_serve.demo import llama
from dsv4_serve.entrypoint.client.local_replica import free_port
from tests.support.balancer import KEY

from .conftest import ANY_UID, HARDENED, START_SECONDS, Container, Image, podman
from .fleet import SIGNAL

pytestmark = pytest.mark.slow
LIVE_GRACE = 30  # seconds
UNTIL_ENDED = 240.0

REFUSED = """
import asyncio, ctypes, subprocess, sys
from dsv4_serve.entrypoint.supervisor import stack_dump
code = "import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); time.sleep(60)"  # PR_SET_DUMPABLE
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(asyncio.run(stack_dump.dump([child.pid])))
child.kill()
"""


@contextmanager
def served(image: Image, key_file: Path, *options: str) -> Iterator[Container]:
    """The demo of the image with its key in a file; it answers."""
    port = free_port()
    name = podman(
        *("run", "--detach", *HARDENED, f"--user={ANY_UID}", f"--publish=127.0.0.1:{port}:8000"),
        *(f"--volume={key_file}:/run/secrets/api-key:ro", "--env=API_KEY_FILE=/run/secrets/api-key"),
        *(*options, image.name),
    ).stdout.strip()
    try:
        container = Container(name, port)
        container.until_healthy()
        yield container
    finally:
        podman("rm", "--force", "--time=0", "--volumes", name)


@pytest.fixture(scope="module")
def keyed(image: Image, key_file: Path) -> Iterator[Container]:
    with served(image, key_file) as container:
        yield container


def test_the_key_opens_the_published_port(keyed: Container) -> None:
    question = {"model": "demo", "messages": [{"role": "user", "content": llama.QUESTION}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    reply = httpx.post(f"{keyed.url}/v1/chat/completions", json=question, headers=headers, timeout=120, trust_env=False)
    assert reply.json()["choices"][0]["message"]["content"] == llama.ANSWER


def test_no_route_opens_without_it(keyed: Container) -> None:
    for path in ("/v1/models", "/v1/chat/completions", "/invocations", "/tokenize", "/metrics"):
        for headers in ({}, {"Authorization": f"Bearer {KEY}x"}):
            status = httpx.post(f"{keyed.url}{path}", json={}, headers=headers, trust_env=False).status_code
            assert (path, status) == (path, 401)


def test_the_key_stands_in_no_command_line_and_in_no_log(keyed: Container) -> None:
    lines = keyed.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert "vllm serve" in lines
    assert KEY not in lines
    assert KEY not in keyed.log()


def test_a_hung_engine_is_ended_and_its_stacks_are_read_without_any_capability(image: Image, key_file: Path) -> None:
    with served(image, key_file, f"--env=DSV4_SUPERVISE_LIVE_GRACE={LIVE_GRACE}") as hung:
        until = time.monotonic() + START_SECONDS
        while hung.run("dsv4", "probe", "ready", check=False).returncode and time.monotonic() < until:
            time.sleep(1)  # until the readiness gate passed: before that, other limits apply
        assert hung.run("python", "-c", SIGNAL, str(int(signal.SIGSTOP))).stdout == "1\n"
        until = time.monotonic() + UNTIL_ENDED
        while hung.state()["Running"] and time.monotonic() < until:
            time.sleep(1)
        assert hung.state()["ExitCode"] == 83
        stacks = hung.log().partition("stacks of vLLM's processes:")[2]
    engine = stacks.partition("VLLM::Engine")[2].partition("\nprocess ")[0]
    assert "T (stopped)" in engine
    assert "run_engine_core" in engine
    assert "Python stacks cannot be read" not in stacks


def test_where_stacks_are_refused_one_sentence_says_so(image: Image) -> None:
    lines = image.run("python", "-c", REFUSED).stdout.strip().splitlines()
    assert lines[-3:-1] == ["no Python stack: reading it was refused", ""]
    assert lines[-1].startswith("Python stacks cannot be read, because ")
