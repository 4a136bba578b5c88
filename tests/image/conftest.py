"""
The CPU image, built by tools/image/build.sh and run by podman, as people run it.

DSV4_IMAGE names an image to test instead of a new one. DSV4_BUILD_ARGUMENTS go to the builder: base images and secrets of this host.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dsv4_serve.entrypoint.client.local_replica import free_port
from dsv4_serve.entrypoint.containers import deployment as make
from dsv4_serve.entrypoint.containers.daemon import Daemon, connect
from dsv4_serve.entrypoint.errors import HostError
from tests.support.balancer import KEY

Report = Callable[..., None]
ROOT = Path(__file__).parents[2]
START_SECONDS = 600
ANY_UID = "12345:0"
HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--tmpfs=/dev/shm:size=1g",  # the default is 64 MB, and vLLM's processes talk through 160 MiB of it
)


@dataclass(frozen=True)
class Image:
    """An image by name or id."""

    name: str

    def run(self, *words: str, user: str = ANY_UID, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command in a hardened container of its own, and return what it said."""
        return podman("run", "--rm", *HARDENED, f"--user={user}", self.name, *words, check=check)

    def read_json(self, path: str) -> Any:
        """Return the JSON of a file in the image."""
        return json.loads(self.run("cat", path).stdout)

    def inspect(self) -> dict[str, Any]:
        """Return podman's account of it."""
        (found,) = json.loads(podman("image", "inspect", self.name).stdout)
        return dict(found)

    def config(self) -> dict[str, Any]:
        """Return what a container of it starts with."""
        found = self.inspect()
        return {**found["Config"], "Healthcheck": found.get("Healthcheck") or found["Config"].get("Healthcheck")}


@dataclass(frozen=True)
class Container:
    """A container that runs, and the port of its API on this host."""

    name: str
    port: int

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command in it, and return what it said."""
        return podman("exec", self.name, *words, check=check)

    def state(self) -> dict[str, Any]:
        """Return podman's account of it."""
        (found,) = json.loads(podman("container", "inspect", self.name).stdout)
        return dict(found["State"])

    def log(self) -> str:
        """Return what it wrote, to stdout and to stderr."""
        said = podman("logs", self.name, check=False)
        return said.stdout + said.stderr

    def until_healthy(self) -> None:
        """Wait until vLLM answers; fail the test with the end of the log."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.state()["Running"]:
            try:
                if httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(1)
        pytest.fail(f"not healthy within {START_SECONDS} s:\n{self.log()[-4000:]}")


def podman(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman; fail the test with what it said when it fails, unless `check` is false."""
    done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False, timeout=600)
    if check and done.returncode:
        pytest.fail(f"podman {shlex.join(words)}: status {done.returncode}\n{done.stderr[-4000:]}")
    return done


def build(*arguments: str) -> str:
    """Build the CPU image and return its id; skip the test where nothing can build it."""
    if not shutil.which("buildah"):
        pytest.skip("there is no buildah on PATH to build the image with")
    given = shlex.split(os.environ.get("DSV4_BUILD_ARGUMENTS", ""))
    command = [str(ROOT / "tools/image/build.sh"), "cpu", *given, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode:
        pytest.fail(f"{shlex.join(command)}: status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout.split()[-1]


@pytest.fixture(scope="session")
def image() -> Image:
    if not shutil.which("podman"):
        pytest.skip("there is no podman on PATH to run the image with")
    return Image(os.environ.get("DSV4_IMAGE") or build())


@pytest.fixture(scope="session")
def container(image: Image) -> Iterator[Container]:
    """The demo of the image, hardened, under a uid that its passwd does not know."""
    port, health = free_port(), free_port()
    ports = [f"--publish=127.0.0.1:{number}:{number}" for number in (port, health)]
    settings = [f"--env=PORT={port}", f"--env=DSV4_HEALTH_PORT={health}"]
    name = podman("run", "--detach", *HARDENED, f"--user={ANY_UID}", *ports, *settings, image.name).stdout.strip()
    try:
        yield Container(name, port)
    finally:
        podman("rm", "--force", "--time=0", "--volumes", name)


@pytest.fixture(scope="module")
def daemon() -> Daemon:
    """Docker, or podman's socket, with nothing of dsv4 on it."""
    try:
        found = connect(os.environ)
    except HostError as error:
        pytest.skip(str(error))
    if running := sorted(name for name in found.containers() if name.startswith("dsv4-")):
        pytest.skip(f"something of dsv4 is on this host: {', '.join(running)}")
    return found


@pytest.fixture(scope="module")
def images(daemon: Daemon) -> tuple[str, str]:
    """The CPU image and HAProxy's, by name."""
    names = os.environ.get("DSV4_IMAGE", make.CPU_IMAGE), os.environ.get("DSV4_BALANCER_IMAGE", make.BALANCER_IMAGE)
    if missing := [name for name in names if daemon.image(name) is None]:
        pytest.skip(f"there is no image {missing[0]}; name one with DSV4_IMAGE or DSV4_BALANCER_IMAGE")
    return names


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The balancer's key in a file that every uid may read."""
    file = tmp_path_factory.mktemp("secrets") / "api-key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o444)
    return file


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Print figures for the pages in docs/, past pytest's capture."""

    def say(what: str, **seconds: float) -> None:
        told = ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items())
        with capsys.disabled():
            print(f"\n{what}: {told}" if told else f"\n{what}")

    return say
