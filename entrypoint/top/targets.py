"""Find the replicas to watch: those that are named, else those of `dsv4 up`, else the one of this host."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import api_key, plain_file
from ..client import endpoint
from ..containers import daemon
from ..containers.observe import published
from ..containers.options import KEY_FILE
from ..errors import ConfigError, HostError
from ..exit_status import ExitStatus
from ..listen import HEALTH_PORT, health_address
from ..supervisor import run_folder


@dataclass(frozen=True)
class TopTarget:
    """A replica: its name, its health server (None where its container does not run), and how it ended."""

    name: str
    url: str | None
    phase: str = ""
    """Of a container that does not run, as the engine names it."""
    cause: str = ""


def find(named: Sequence[str], key_file: str | None, environ: Mapping[str, str]) -> tuple[list[TopTarget], str | None]:
    """
    Return the replicas, and the key of all of them: that of --api-key-file, API_KEY_FILE or VLLM_API_KEY.

    Without one, that of `dsv4 up` is sent to its own replicas only. Raise UsageError for an invalid address,
    ConfigError for an invalid port or key.
    """
    given = endpoint.key_of(key_file, environ)
    if named:
        urls = dict.fromkeys(endpoint.checked_url("--health", one) for one in named)
        return [_named(url, environ) for url in urls], given
    if replicas := _of_up(environ):
        own = api_key.key_in(KEY_FILE, f"the default {KEY_FILE}") if not given and Path(KEY_FILE).exists() else given
        return replicas, own
    return [_named(f"http://localhost:{health_address(environ)[1]}", environ)], given


def _of_up(environ: Mapping[str, str]) -> list[TopTarget]:
    with contextlib.suppress(HostError, ConfigError):  # none here, or DOCKER_HOST is another host's
        ours = daemon.connect(environ).ours().values()
        return [_container(one) for one in ours if one.labels.get(daemon.ROLE) == "replica"]
    return []


def _named(url: str, environ: Mapping[str, str]) -> TopTarget:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    return TopTarget(f"{host}:{port}", url, cause=_last_exit(host, port, environ))


def _container(container: Any) -> TopTarget:
    state = container.attrs["State"]
    if state["Running"]:
        return TopTarget(container.name, f"http://127.0.0.1:{published(container, HEALTH_PORT)}")
    return TopTarget(container.name, None, state["Status"], _ended(int(state["ExitCode"]), container.name))


def _ended(status: int, name: str) -> str:
    label = next((f" ({one.label})" for one in ExitStatus if one == status), "")
    return f"exit status {status}{label}; `dsv4 logs {name}` shows why"


def _last_exit(host: str, port: int, environ: Mapping[str, str]) -> str:
    """Return how the last server of this host and port ended, by its run directory; empty where that is unknown."""
    if host not in ("localhost", "127.0.0.1", "::1"):
        return ""
    named = environ.get("DSV4_RUN_DIR")
    folder = Path(named) if named else run_folder.of_user(environ, port)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        last = plain_file.parse_json(plain_file.read(folder / run_folder.LAST_EXIT, 1))
        return f"{last['cause']} (exit status {last['status']}): {last['root'] or last['sentence']}"
    return ""
