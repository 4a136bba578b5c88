"""A file system that is soon full."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB; skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    sudo = ["sudo", "-n"] if shutil.which("sudo") else []
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run([*sudo, "umount", "--lazy", str(folder)], check=True)
