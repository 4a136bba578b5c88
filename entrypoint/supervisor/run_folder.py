"""The run directory of one server, for what outlives a restart. Two servers cannot share one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import HostError

PLAN, STACKS, LAST_EXIT, INTERNAL_ERROR = "plan.json", "stacks.txt", "last-exit.json", "internal-error.txt"


def of_user(environ: Mapping[str, str], health_port: int) -> Path:
    """Return the folder of this user's server with this health port, below their state."""
    state = Path(environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "/nonexistent", ".local/state"))
    return state / "dsv4" / str(health_port)


def choose(named: Path | None, environ: Mapping[str, str], health_port: int) -> Path:
    """Return the named folder, else one of the user's for this health port; raise HostError if none can be made."""
    if named:
        return named
    own, temporary = of_user(environ, health_port), Path(tempfile.gettempdir())
    for folder in (own, temporary / f"dsv4-{os.getuid()}" / str(health_port)):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise HostError(
        f"The run directory cannot be created under {own.parents[1]} or {temporary};"
        " set DSV4_RUN_DIR to a writable folder."
    )


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Lock the run directory; raise HostError when it cannot be written, or another server uses it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a pipe without a reader would block an open for writing alone
        lock = os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK), "rb+", 0)
    except OSError as error:
        raise HostError(
            f"cannot write to run directory {folder} ({error.strerror}); set DSV4_RUN_DIR to a writable folder."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HostError(
                f"Run directory {folder} is in use by another `dsv4 serve`; set DSV4_RUN_DIR to another folder."
            ) from None
        yield
