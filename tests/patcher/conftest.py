from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsv4_serve.patcher.cli import main
from dsv4_serve.patcher.export import export

TRAILERS = """Upstream-Status: Pending
Applies-To: vllm ==0.32.0
Drop-When: vllm >=0.33 (when upstream has it)
Self-Test: tests/patches/test_example.py"""
UNPACKED = {
    "vllm/__init__.py": b"",
    "vllm/_version.py": b"__version__ = version = '0.32.0'\n__commit_id__ = commit_id = 'g5df63a720'\n",
    "vllm/models/long.py": b"".join(b"x%d = %d\n" % (n, n) for n in range(60)),
    "vllm/models/short.py": b"a = 1\nb = 2",
    "vllm/models/old.py": b"gone = True\n",
}


@dataclass
class Workshop:
    """An unpacked vLLM under git, in which patches are made."""

    root: Path

    def git(self, *arguments: str) -> str:
        environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        identity = ["-c", "user.name=A Developer", "-c", "user.email=dev@example.org"]
        command = ["git", "-C", str(self.root), *identity, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def commit(self, subject: str, edits: dict[str, bytes | None], trailers: str = TRAILERS) -> None:
        for path, data in edits.items():
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if data is None:
                file.unlink()
            else:
                file.write_bytes(data)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"{subject}\n\nWhat a user sees without it.\n\n{trailers}")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A fresh unpacked vLLM with one commit, tagged `base`."""
    return _workshop(tmp_path / "workshop")


def _workshop(root: Path) -> Workshop:
    made = Workshop(root)
    root.mkdir()
    made.git("init", "--quiet")
    made.commit("vllm 0.32.0", dict(UNPACKED))
    made.git("tag", "base")
    return made


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Three commits after `base`: two of them on one file, a file created in a new folder, a file deleted."""
    made = _workshop(tmp_path_factory.mktemp("example") / "workshop")
    long = UNPACKED["vllm/models/long.py"]
    first = long.replace(b"x7 = 7\n", b"x7 = 8\n").replace(b"x40 = 40\n", b"x40 = 41\nextra = 1\n")
    made.commit("Count one more", {"vllm/models/long.py": first, "vllm/models/short.py": b"a = 1\nb = 3\n"})
    made.commit("Count two more", {"vllm/models/long.py": first.replace(b"x7 = 8", b"x7 = 9")})
    made.commit("Move old away", {"vllm/models/old.py": None, "vllm/new/folder/moved.py": b"gone = False\n"})
    return made


@pytest.fixture
def series(example: Workshop, tmp_path: Path) -> Path:
    """The series of `example`, in a repository that holds its self-test."""
    directory = tmp_path / "repository" / "patcher" / "patches" / "0.32.0"
    export(example.root, "base", directory)
    test = tmp_path / "repository" / "tests" / "patches" / "test_example.py"
    test.parent.mkdir(parents=True)
    test.write_text("")
    return directory


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An unpatched vLLM as a wheel unpacks it."""
    root = tmp_path / "tree"
    for path, data in UNPACKED.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@pytest.fixture
def patched(example: Workshop, tmp_path: Path) -> Path:
    """What `tree` must be after the series, as git has it."""
    return Path(shutil.copytree(example.root, tmp_path / "patched", ignore=shutil.ignore_patterns(".git")))


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """Return every file below a folder with its bytes, and every folder as an empty entry."""

    def take(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): b"" if p.is_dir() else p.read_bytes() for p in sorted(root.rglob("*"))}

    return take


@dataclass
class Outcome:
    """What one run of the command answered."""

    status: int
    out: str
    error: str


@pytest.fixture
def patch(series: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `dsv4 patch COMMAND` with `series` and `tree`, unless other options are given."""

    def run(command: str, *options: str) -> Outcome:
        argv = [command, *options]
        if "--series" not in options:
            argv += ["--series", str(series)]
        if "--tree" not in options and command not in ("lint", "export"):
            argv += ["--tree", str(tree)]
        status = main(argv)
        out, error = capsys.readouterr()
        return Outcome(status, out, error)

    return run
