"""Connect to the container engine of this host: Docker, or podman through its compatible socket."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, HostError

Log = Callable[[str], None]
"""Takes one line of progress."""
ROLE = "dsv4.role"
"""Label of every container and network that `dsv4 up` made: `replica`, `balancer`, `network`."""
CONFIGURATION = "dsv4.configuration"
"""Label with the fingerprint of a container's settings."""
SECONDS = 60
"""Seconds for one answer; stopping a container may take its own time in addition."""


@dataclass(frozen=True)
class Daemon:
    """A connection. `client` is docker-py's; `podman` is true where podman answers."""

    client: Any
    socket: str
    podman: bool

    def containers(self) -> dict[str, Any]:
        """Return every container by name, running or not."""
        with engine_errors("The containers cannot be listed"):
            return {each.name: each for each in self.client.containers.list(all=True, ignore_removed=True)}

    def ours(self) -> dict[str, Any]:
        """Return the containers that `dsv4 up` made, by name."""
        return {name: container for name, container in sorted(self.containers().items()) if is_ours(container)}

    def image(self, name: str) -> str | None:
        """Return the id of an image, None when it is not here."""
        import docker.errors

        with engine_errors(f"Image {name} cannot be read"):
            try:
                return str(self.client.images.get(name).id)
            except docker.errors.ImageNotFound:
                return None


def is_ours(container: Any) -> bool:
    """Tell whether `dsv4 up` made a container; those of compose have other labels."""
    return CONFIGURATION in container.labels


def connect(environ: Mapping[str, str]) -> Daemon:
    """
    Connect to DOCKER_HOST, else to the first socket that exists.

    Raise ConfigError for an engine on another host, HostError when none answers.
    """
    import docker.errors

    host = environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        raise ConfigError(
            f"DOCKER_HOST is {host}, but folders and health ports are those of this host, so it must be unix://PATH;"
            " run dsv4 on that host."
        )
    url = host or _first(environ)
    try:
        client = docker.DockerClient(base_url=url, timeout=SECONDS)
        parts = client.version().get("Components") or []
    except (docker.errors.DockerException, OSError) as error:
        raise HostError(
            f"No container engine answers on {url} ({_reason(error)}); start it, let this user write to its socket, or"
            " name another with DOCKER_HOST."
        ) from None
    return Daemon(client, url, any("podman" in part.get("Name", "").lower() for part in parts))


def sockets(environ: Mapping[str, str]) -> list[Path]:
    """Return the possible sockets: Docker's, then podman's of this user, then podman's of root."""
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return [Path("/var/run/docker.sock"), Path(runtime, "podman/podman.sock"), Path("/run/podman/podman.sock")]


def _first(environ: Mapping[str, str]) -> str:
    paths = sockets(environ)
    for path in paths:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(path.stat().st_mode):
                return f"unix://{path}"
    raise HostError(
        f"No socket of a container engine exists ({', '.join(map(str, paths))}), and DOCKER_HOST is not set."
        " Start Docker, or `systemctl --user start podman.socket`, or set DOCKER_HOST=unix://PATH."
    )


@contextlib.contextmanager
def engine_errors(failure: str) -> Iterator[None]:
    """Turn an error of the engine into a HostError that begins with `failure`."""
    import docker.errors
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise HostError(f"{failure}: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    """Return the engine's own explanation, else the operating system's, else the error itself."""
    text: object = getattr(error, "explanation", None) or _system_error(error) or error
    return " ".join(str(text).split()).rstrip(".")


def _system_error(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror.lower()
        error = error.__context__
    return ""
