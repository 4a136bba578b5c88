"""
A container engine of this host, and images that cost little: the real `dsv4 serve` with the stand-in for vLLM.

DOCKER_HOST names the engine's socket, DSV4_IMAGE the CPU image, DSV4_BALANCER_IMAGE an image of HAProxy.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client.local_replica import free_port
from dsv4_serve.entrypoint.containers import deployment as make
from dsv4_serve.entrypoint.containers.daemon import Daemon, connect
from dsv4_serve.entrypoint.containers.deployment import Deployment
from dsv4_serve.entrypoint.containers.down import down
from dsv4_serve.entrypoint.errors import HostError
from tests.support.program import ROOT

HERE = Path(__file__).parent
KEY = "sesame"
IMPATIENT = {"DSV4_SUPERVISE_POLL": "0.2", "DSV4_SUPERVISE_DRAIN_WAIT": "4", "DSV4_GATE_TOKENS": "8", "PROFILE": "demo"}


@pytest.fixture(scope="session")
def daemon() -> Daemon:
    try:
        return connect(os.environ)
    except HostError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def image(daemon) -> str:
    base = os.environ.get("DSV4_IMAGE", "dsv4-serve:cpu")
    if daemon.image(base) is None:
        pytest.skip(f"there is no image {base}; name the CPU image with DSV4_IMAGE")
    files = (HERE / "Dockerfile", HERE / "vllm", ROOT / "tests/support/stand_in.py")
    made, _ = daemon.client.images.build(
        fileobj=packed(files), custom_context=True, tag="dsv4-stand-in:test", buildargs={"IMAGE": base}
    )
    return made.id


@pytest.fixture(scope="session")
def balancer_image(daemon) -> str:
    name = os.environ.get("DSV4_BALANCER_IMAGE", make.BALANCER_IMAGE)
    if daemon.image(name) is None:
        pytest.skip(f"there is no image {name}; name one of HAProxy with DSV4_BALANCER_IMAGE")
    return name


@pytest.fixture
def deployment_of(daemon, image, balancer_image, tmp_path) -> Iterator[Callable[..., Deployment]]:
    """Deployments of the stand-in; what they started is gone at the end."""
    if running := daemon.ours():
        pytest.skip(f"something of `dsv4 up` is on this host: {', '.join(running)}")
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o444)
    one = Deployment(
        groups=((), ()),
        key_file=key,
        image=image,
        balancer_image=balancer_image,
        env=IMPATIENT,
        port=free_port(),
        stop_seconds=30,
    )

    def deployment(replicas: int = 2, env: dict[str, str] | None = None, **changes: object) -> Deployment:
        return replace(one, groups=((),) * replicas, env=IMPATIENT | (env or {}), **changes)

    yield deployment
    down(daemon, print)


def packed(files: tuple[Path, ...]) -> io.BytesIO:
    """Return files as the archive that a build takes."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for file in files:
            archive.add(file, file.name)
    whole.seek(0)
    return whole
