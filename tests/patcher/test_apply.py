from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsv4_serve.patcher import apply
from dsv4_serve.patcher.apply import exchange, locked, plan, recover
from dsv4_serve.patcher.errors import NotApplicable, PatcherError, TreeError
from dsv4_serve.patcher.series import read_series
from dsv4_serve.patcher.tree import JOURNAL, STAGED, open_tree, require_whole

Snapshot = Callable[[Path], dict[str, bytes]]


def run(tree: Path, series: Path) -> None:
    """What `dsv4 patch apply` does."""
    opened = open_tree(tree)
    with locked(opened):
        recover(opened)
        exchange(opened, plan(opened, read_series(series)))


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process and return its wait status; 0 means it returned."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(pid, 0)[1]


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the kill loops fast: what was written survives SIGKILL without fsync, which is for a loss of power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def killed(condition: Callable[[], bool], work: Callable[[], object]) -> bool:
    """Run `work` in a child that gets SIGKILL before the first line of apply.py at which `condition` holds."""

    def trace(frame, event, _):
        if frame.f_code.co_filename != apply.__file__:
            return None
        if event == "line" and condition():
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def traced() -> None:
        sys.settrace(trace)
        work()

    status = in_child(traced)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def line(number: int) -> Callable[[], bool]:
    """Hold at the `number`-th line that is executed."""
    lines = itertools.count(1)
    return lambda: next(lines) == number


def test_apply_makes_the_tree_that_git_has(tree: Path, patched: Path, series: Path, snapshot: Snapshot):
    (tree / "vllm/models/long.py").chmod(0o755)
    run(tree, series)
    new = snapshot(patched)
    assert snapshot(tree) == new
    assert (tree / "vllm/models/long.py").stat().st_mode & 0o777 == 0o755


def test_apply_twice_writes_nothing_the_second_time(tree: Path, series: Path):
    run(tree, series)
    before = {p: p.stat().st_mtime_ns for p in tree.rglob("*")}
    run(tree, series)
    assert {p: p.stat().st_mtime_ns for p in tree.rglob("*")} == before


def test_apply_takes_a_tree_with_the_first_patch_to_the_end(
    tree: Path, patched: Path, series: Path, snapshot: Snapshot
):
    whole = (series / "series").read_text()
    (series / "series").write_text("count-one-more.patch\n")
    run(tree, series)
    (series / "series").write_text(whole)
    run(tree, series)
    assert snapshot(tree) == snapshot(patched)


def test_a_hard_linked_copy_of_a_file_keeps_its_bytes(tree: Path, series: Path, tmp_path: Path):
    cached = tmp_path / "cached.py"
    os.link(tree / "vllm/models/long.py", cached)
    before = cached.read_bytes()
    run(tree, series)
    assert cached.read_bytes() == before


def break_byte(tree: Path) -> None:
    file = tree / "vllm/models/old.py"
    file.write_bytes(file.read_bytes() + b"#")


def break_missing(tree: Path) -> None:
    (tree / "vllm/models/old.py").unlink()
    (tree / "vllm/models/short.py").unlink()


def break_crlf(tree: Path) -> None:
    file = tree / "vllm/models/short.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))


def break_link(tree: Path) -> None:
    (tree / "vllm/models/short.py").rename(tree / "short.py")
    (tree / "vllm/models/short.py").symlink_to("../../short.py")


def break_parent(tree: Path) -> None:
    (tree / "elsewhere").mkdir()
    (tree / "vllm/new").symlink_to("../elsewhere")


@pytest.mark.parametrize("damage", [break_byte, break_missing, break_crlf, break_link, break_parent])
def test_nothing_is_written_to_a_tree_that_does_not_fit(
    tree: Path, series: Path, snapshot: Snapshot, damage: Callable[[Path], None]
):
    damage(tree)
    before = snapshot(tree)
    with pytest.raises(PatcherError):
        run(tree, series)
    assert snapshot(tree) == before


def test_a_diff_that_lies_about_its_result_is_refused(tree: Path, series: Path, snapshot: Snapshot):
    file = series / "move-old-away.patch"
    file.write_text(file.read_text().replace("+gone = False", "+gone = Fals3"))
    before = snapshot(tree)
    with pytest.raises(NotApplicable, match="but the diff expects"):
        run(tree, series)
    assert snapshot(tree) == before


@pytest.fixture
def shared_tree(tree: Path) -> Iterator[Path]:
    """A copy of `tree` that other users may enter (pytest's own folders are private)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(tree, Path(folder) / "tree"))


@pytest.mark.parametrize("locked_folder", [".", "vllm", "vllm/models"])
def test_a_read_only_folder_is_one_error_and_nothing_is_written(
    shared_tree: Path, series: Path, snapshot: Snapshot, locked_folder: str
):
    read = read_series(series)
    before = snapshot(shared_tree)
    if os.getuid():
        for folder in shared_tree / locked_folder, *(p for p in (shared_tree / locked_folder).rglob("*") if p.is_dir()):
            folder.chmod(0o555)
    elif locked_folder == "vllm/models":
        for folder in shared_tree, shared_tree / "vllm":
            os.chown(folder, 65534, 65534)

    def as_a_user() -> None:
        if not os.getuid():
            os.setuid(65534)
        opened = open_tree(shared_tree)
        with locked(opened), pytest.raises(TreeError, match="not writable"):
            exchange(opened, plan(opened, read))

    assert in_child(as_a_user) == 0
    assert snapshot(shared_tree) == before


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_killed_at_any_line_the_tree_is_the_old_one_or_the_next_run_makes_it_the_new_one(
    tree: Path, patched: Path, series: Path, tmp_path: Path, snapshot: Snapshot
):
    old, new = snapshot(tree), snapshot(patched)
    answers = set()
    for step in itertools.count(1):
        victim = Path(shutil.copytree(tree, tmp_path / "victim"))
        if not killed(line(step), lambda: run(victim, series)):  # noqa: B023
            break
        opened = open_tree(victim)
        visible = {path: data for path, data in snapshot(victim).items() if not path.endswith(STAGED)}
        assert (victim / JOURNAL).exists() or visible in (old, new)
        answer = recover(opened)
        answers.add(answer)
        assert snapshot(victim) in (old, new)
        assert answer is None or snapshot(victim) == (new if answer == "finished" else old)
        run(victim, series)
        assert snapshot(victim) == new
        shutil.rmtree(victim)
    assert answers == {None, "undone", "finished"}
    assert step > 100


def interrupted(tree: Path, series: Path, phase: str) -> None:
    """Kill an apply when the journal is in `phase` and two of the three new files are staged."""

    def half_way() -> bool:
        journal = tree / JOURNAL
        staged = list(tree.rglob("*.py.dsv4-new"))
        return journal.exists() and f'"{phase}"' in journal.read_text() and len(staged) == 2

    assert killed(half_way, lambda: run(tree, series))


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("phase", ["stage", "commit"])
def test_a_recovery_that_is_killed_itself_ends_in_the_same_tree(  # noqa: PLR0917
    tree: Path, patched: Path, series: Path, tmp_path: Path, snapshot: Snapshot, phase: str
):
    end = snapshot(patched) if phase == "commit" else snapshot(tree)
    interrupted(tree, series, phase)
    for step in itertools.count(1):
        victim = Path(shutil.copytree(tree, tmp_path / "victim"))
        if not killed(line(step), lambda: recover(open_tree(victim))):  # noqa: B023
            break
        recover(open_tree(victim))
        assert snapshot(victim) == end
        shutil.rmtree(victim)
    assert step > 10


@pytest.mark.usefixtures("unsynced")
def test_other_commands_refuse_an_interrupted_tree(tree: Path, series: Path):
    interrupted(tree, series, "commit")
    with pytest.raises(TreeError, match="run `dsv4 patch apply` again"):
        require_whole(open_tree(tree))


@pytest.mark.usefixtures("unsynced")
def test_a_file_changed_after_the_interruption_is_not_overwritten(tree: Path, series: Path, snapshot: Snapshot):
    interrupted(tree, series, "commit")
    for file in (tree / "vllm/models/long.py", tree / "vllm/models/short.py"):
        file.write_text("reinstalled = True\n")
    before = snapshot(tree)
    with pytest.raises(TreeError, match="changed after an interrupted apply"):
        run(tree, series)
    assert snapshot(tree) == before


@pytest.mark.parametrize(
    "journal", ["", "[]", "{}", '{"phase": "commit", "files": [["../../x", "", ""]]}', '{"phase": "stage", "files": 3}']
)
def test_a_foreign_journal_is_refused(tree: Path, series: Path, snapshot: Snapshot, journal: str):
    (tree / JOURNAL).write_text(journal)
    before = snapshot(tree)
    with pytest.raises(TreeError, match="not a journal of this patcher"):
        run(tree, series)
    assert snapshot(tree) == before


@pytest.mark.parametrize(("event", "at_least"), [("open", 5), ("os.rename", 4), ("os.mkdir", 2)])
def test_a_write_that_the_file_system_refuses_leaves_the_tree_as_it_was(  # noqa: PLR0917
    tree: Path, series: Path, tmp_path: Path, snapshot: Snapshot, event: str, at_least: int
):
    before = snapshot(tree)
    errors = []
    for nth in range(1, 100):
        victim = Path(shutil.copytree(tree, tmp_path / "victim"))
        report = tmp_path / "report"
        assert in_child(lambda: report.write_text(refuse(event, nth, victim, series))) == 0  # noqa: B023
        if report.read_text() == "never reached":
            break
        if report.read_text() != "done":
            assert snapshot(victim) == before
            errors.append(report.read_text())
        shutil.rmtree(victim)
    assert len(errors) >= at_least
    assert all(error.endswith("No space left on device. The tree is unchanged.") for error in errors)


def refuse(event: str, nth: int, tree: Path, series: Path) -> str:
    """Apply while the `nth` file system call of one kind fails, and say how that ended."""
    seen = 0

    def hook(name: str, arguments: tuple) -> None:
        nonlocal seen
        writes = name != "open" or (isinstance(arguments[2], int) and arguments[2] & os.O_CREAT)
        if name == event and writes and str(tree) in str(arguments[0]):
            seen += 1
            if seen == nth:
                raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))

    opened = open_tree(tree)
    with locked(opened):
        changes = plan(opened, read_series(series))
        sys.addaudithook(hook)
        try:
            exchange(opened, changes)
        except TreeError as error:
            return str(error)
    return "done" if seen >= nth else "never reached"


def test_new_files_are_on_disk_before_they_count_and_the_folders_before_the_journal_goes(
    tree: Path, series: Path, monkeypatch: pytest.MonkeyPatch
):
    events = []
    sync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def record(kind: str, path: Path) -> None:
        events.append((kind, str(path.relative_to(tree))))

    monkeypatch.setattr(os, "fsync", lambda fd: (record("sync", Path(f"/proc/self/fd/{fd}").readlink()), sync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (record("replace", target), replace(self, target)))
    monkeypatch.setattr(Path, "unlink", lambda self: (record("unlink", self), unlink(self)))
    run(tree, series)
    recorded = [n for n, event in enumerate(events) if event == ("replace", JOURNAL)]
    staged, committed = events[recorded[0] : recorded[1]], events[recorded[1] :]
    for path in ("models/.long.py", "models/.short.py", "new/folder/.moved.py"):
        assert ("sync", f"vllm/{path}{STAGED}") in staged
    for folder in ("vllm/models", "vllm/new/folder"):
        assert ("sync", folder) in staged
        assert ("sync", folder) in committed[: committed.index(("unlink", JOURNAL))]


def test_two_applies_at_once_are_refused(tree: Path, series: Path):
    def second() -> None:
        with pytest.raises(TreeError, match="another `dsv4 patch apply`"):
            run(tree, series)

    with locked(open_tree(tree)):
        assert in_child(second) == 0
    run(tree, series)


def test_ctrl_c_waits_for_the_exchange_to_end(tree: Path, patched: Path, series: Path, snapshot: Snapshot):
    def exchange_under_ctrl_c() -> None:
        opened = open_tree(tree)
        with locked(opened):
            os.kill(os.getpid(), signal.SIGINT)
            exchange(opened, plan(opened, read_series(series)))

    def interrupted_by_the_user() -> None:
        with pytest.raises(KeyboardInterrupt):
            exchange_under_ctrl_c()

    assert in_child(interrupted_by_the_user) == 0
    assert snapshot(tree) == snapshot(patched)
