"""Limits of processes: real control groups and a real RLIMIT_NPROC where this machine permits them, and trees of files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import process_limits
from dsv4_serve.entrypoint.process_limits import LEAST, ProcessLimit, reached
from tests.support.small_pids import few_pids

__all__ = ["few_pids"]
ROOT = Path(__file__).parents[2]
NOBODY = 65534
PROGRAM = """
import sys, threading
from dsv4_serve.entrypoint import process_limits

before, started, end = process_limits.read(), [], threading.Event()
try:
    for _ in range(int(sys.argv[1])):
        thread = threading.Thread(target=end.wait)
        thread.start()
        started.append(thread)
except RuntimeError as error:
    print(error)
end.set()
for thread in started:
    thread.join()
limit = process_limits.reached(before, process_limits.read())
print(len(started), limit.clause() if limit else "not reached")
"""
SEES_OWN = "0::/"
"""What a container has in /proc/self/cgroup; its group is mounted on /sys/fs/cgroup."""


def in_group(group: Path, threads: int) -> str:
    """Return what the program printed in this control group."""
    join = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    command = ["sh", "-c", join, "sh", sys.executable, "-c", PROGRAM, str(threads)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout


@pytest.mark.parametrize(("limit", "threads", "refused"), [(50, 60, True), (50, 20, False), (2000, 60, False)])
def test_a_control_group_that_refused_one_is_named_and_no_other(
    few_pids: Callable[[int], Path], limit: int, threads: int, refused: bool
) -> None:
    printed = in_group(few_pids(limit), threads)
    assert ("can't start new thread" in printed) is refused, printed
    assert (f"The limit of {limit} processes and threads was reached (pids.max" in printed) is refused, printed
    assert printed.endswith("not reached\n") is not refused


def test_one_above_that_refuses_is_named_too(few_pids: Callable[[int], Path]) -> None:
    group = few_pids(50)
    inside = group / "inside"
    inside.mkdir()
    try:
        printed = in_group(inside, 60)
    finally:
        inside.rmdir()
    assert "processes and threads was reached (pids.max" in printed, printed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize(("limit", "near"), [(LEAST - 10, True), (LEAST + 200, False)])
def test_the_limit_of_a_user_is_named_where_it_leaves_too_few(limit: int, near: bool) -> None:
    program = (
        f"import os, resource\nresource.setrlimit(resource.RLIMIT_NPROC, ({limit}, {limit}))\n"
        f"from dsv4_serve.entrypoint import process_limits\nos.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "limits = process_limits.read()\n"
        "limit = process_limits.reached(limits, process_limits.read())\n"
        "print([one.most for one in limits if one.where == 'user'], limit.clause() if limit else 'not reached')\n"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout
    assert printed.startswith(f"[{limit}] "), printed
    assert (f"This user may have {limit} processes and threads" in printed) is near, printed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is exempt")
def test_a_user_whom_the_kernel_does_not_limit_has_none() -> None:
    program = (
        "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (5, 5))\n"
        "from dsv4_serve.entrypoint import process_limits\nprint([one for one in process_limits.read() if one.where == 'user'])"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout == "[]\n"


def tree(root: Path, cgroup: str, groups: dict[str, dict[str, str]]) -> Path:
    """Write what the kernel shows: /proc/self/cgroup, and files of groups."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(cgroup + "\n")
    (root / "proc/self/status").write_text("CapEff:\t000001ffffffffff\n")
    for name, files in groups.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / f"pids.{file}").write_text(text + "\n")
    return root


def files(most: str, used: int, refused: int) -> dict[str, str]:
    return {"max": most, "current": str(used), "events": f"max {refused}"}


def test_a_container_reads_its_own_group_of_version_2(tmp_path: Path) -> None:
    (found,) = process_limits.read(tree(tmp_path, SEES_OWN, {"": files("50", 4, 3)}))
    assert (found.most, found.used, found.refused) == (50, 4, 3)


def test_groups_are_read_from_the_innermost_to_the_mount_and_without_limits_too(tmp_path: Path) -> None:
    inside, above = files("max", 4, 1), files("400", 90, 0)
    groups = {"user.slice": above, "user.slice/one.service": inside}
    found = process_limits.read(tree(tmp_path, "0::/user.slice/one.service", groups))
    assert [(one.most, one.used, one.refused) for one in found] == [(None, 4, 1), (400, 90, 0)]


def test_version_1_has_a_hierarchy_of_its_own_whose_path_a_container_may_not_see(tmp_path: Path) -> None:
    lines = "5:pids:/docker/0123\n4:memory:/docker/0123\n0::/init"
    found = process_limits.read(tree(tmp_path, lines, {"pids": files("50", 40, 0)}))
    assert [(one.most, one.used) for one in found] == [(50, 40)]


@pytest.mark.parametrize("cgroup", ["", "0::/", "0::/gone"])
def test_without_files_there_is_no_limit(tmp_path: Path, cgroup: str) -> None:
    assert process_limits.read(tree(tmp_path, cgroup, {}) if cgroup else tmp_path) == ()


WHOLE, EVERY = "0 0 4294967295", "000001ffffffffff"


@pytest.mark.parametrize(
    ("user", "maps", "capabilities", "limited"),
    [
        (1000, WHOLE, "0000000000000000", True),
        (1000, "", "", True),
        (1000, WHOLE, "0000000000200000", False),
        (1000, WHOLE, "0000000001000000", False),
        (0, WHOLE, "0000000000000000", False),
        (0, "", "0000000000000000", False),
        (0, "0 1000 1\n1 100000 65536", EVERY, True),
        (1000, "0 1000 1\n1 100000 65536", EVERY, True),
        (0, "0 0 1", "0000000000000000", False),
        (1000, "1000 0 1", "0000000000000000", False),
    ],
)
def test_threads_of_the_real_user_are_counted_where_the_kernel_limits_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, user: int, maps: str, capabilities: str, limited: bool
) -> None:
    """It does not limit the host's root, but that of a rootless container. gVisor may leave lines out."""
    own, other = f"Uid:\t{user}\t7\t7\t7", f"Uid:\t7\t{user}\t{user}\t{user}"
    processes = {"7": f"{own}\nThreads:\t5", "8": f"{other}\nThreads:\t9", "9": own, "10": "Uid:"}
    for name, text in (*processes.items(), ("self", f"CapEff:\t{capabilities}" if capabilities else own)):
        (tmp_path / "proc" / name).mkdir(parents=True)
        (tmp_path / "proc" / name / "status").write_text(text + "\n")
    (tmp_path / "proc/self/uid_map").write_text(maps)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert process_limits.read(tmp_path) == ((ProcessLimit("user", 100, 6),) if limited else ())


GROUP = ProcessLimit("/g", 500, 100, refused=7)
OUTER = ProcessLimit("/", None, 100, refused=7)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ([GROUP], [ProcessLimit("/g", 500, 20, refused=7)], None),
        ([GROUP], [ProcessLimit("/g", 500, 20, refused=8)], "The limit of 500 "),
        ([OUTER], [ProcessLimit("/", None, 20, refused=8)], "A limit of "),
        ([OUTER, GROUP], [ProcessLimit("/", None, 9, refused=8), ProcessLimit("/g", 500, 9, refused=8)], "The limit of 500 "),
        ([GROUP], [], None),
        ([], [ProcessLimit("/g", 500, 20, refused=8)], None),
        ([ProcessLimit("user", 100, 100 - LEAST)], [], None),
        ([ProcessLimit("user", 100, 101 - LEAST)], [], "This user may have 100 "),
        ([ProcessLimit("/g", 100, 101 - LEAST)], [ProcessLimit("/g", 100, 1)], "The limit of 100 "),
        ([ProcessLimit("user", 9, 9), GROUP], [ProcessLimit("/g", 500, 20, refused=8)], "The limit of 500 "),
    ],
)  # fmt: skip
def test_a_limit_is_reached_where_it_refused_one_meanwhile_or_left_too_few(
    before: list[ProcessLimit], now: list[ProcessLimit], named: str | None
) -> None:
    found = reached(before, now)
    assert (found is None) == (named is None)
    assert found is None or found.clause().startswith(named or "")
