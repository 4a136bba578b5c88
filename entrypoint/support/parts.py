"""The parts of a support bundle: what is installed, what was asked for, and what became of it."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import plain_file
from ..client import http
from ..client.errors import Refused
from ..machine.machine import Machine
from ..plan import Plan
from ..supervisor import crash_loop, provenance, run_folder
from .archive import Part

LOG_BYTES = 2 * 2**20
"""Of the end of a log."""
_PAGES = {"startupz.json": "/startupz?format=json", "readyz.txt": "/readyz", "metrics.txt": "/metrics"}


@dataclass(frozen=True)
class Sources:
    """Where the parts come from; functions are called while the archive is made, and may raise OSError or UserError."""

    plan: Callable[[], Plan]
    doctor: Callable[[], Any]
    machine: Callable[[], Machine]
    environment: Mapping[str, str]
    folder: Path
    """The run directory."""
    health: str
    """URL of the health server."""
    log: Path | None
    key: Callable[[], str]
    """The replica's key, which its metrics need; empty without one."""


def parts(sources: Sources) -> dict[str, Part]:
    """Return what makes each file of the archive."""
    folder, log = sources.folder, sources.log
    return {
        "versions.json": versions,
        "environment.json": lambda: dict(sources.environment),
        "machine.json": lambda: dataclasses.asdict(sources.machine()),
        "patches.json": provenance.patches,
        "plan.json": lambda: sources.plan().to_json(),
        "doctor.json": sources.doctor,
        "run/plan.json": lambda: _tail(folder / run_folder.PLAN),
        "run/last-exit.json": lambda: _tail(folder / run_folder.LAST_EXIT),
        "run/stacks.txt": lambda: _tail(folder / run_folder.STACKS),
        "run/internal-error.txt": lambda: _tail(folder / run_folder.INTERNAL_ERROR),
        "run/starts.json": lambda: _tail(folder / crash_loop.FILE),
        **{f"replica/{name}": _page(sources.health + path, sources.key) for name, path in _PAGES.items()},
        **({"log.txt": lambda: _tail(log)} if log else {}),
    }


def versions() -> dict[str, Any]:
    """Return the versions of every installed package, Python, and the kernel of the system."""
    packages = {d.name: d.version for d in metadata.distributions() if d.name}
    system = platform.uname()
    return {
        "python": platform.python_version(),
        "system": f"{system.system} {system.release} {system.machine}",
        "distribution": _distribution(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _page(url: str, key: Callable[[], str]) -> Part:
    def page() -> str:
        answer = http.get(url, key())
        if answer.status_code == 401:
            raise Refused(f"{url}: HTTP 401; set API_KEY_FILE as for `dsv4 serve`.")
        return answer.text

    return page


def _tail(path: Path) -> str | None:
    """Return the end of a regular file, from the start of a line; None if there is none or it is empty."""
    if not path.exists():
        return None
    with plain_file.open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        data = file.read(LOG_BYTES)
    text = data.decode("utf-8", "replace")
    return (text if size <= LOG_BYTES else text.partition("\n")[2]) or None
