from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from dsv4_serve.patcher.export import export
from dsv4_serve.patcher.report import report, verify
from dsv4_serve.patcher.series import read_series
from dsv4_serve.patcher.tree import open_tree


def test_the_report_names_vllm_and_every_patch_with_hash_and_state(patched: Path, series: Path):
    answer = report(open_tree(patched), read_series(series))
    assert answer["vllm"] == {"distribution": "vllm", "version": "0.32.0", "commit": "5df63a720"}
    assert answer["series"] == "0.32.0"
    first = answer["patches"][0]
    assert first == {
        "name": "count-one-more",
        "subject": "Count one more",
        "sha256": hashlib.sha256((series / "count-one-more.patch").read_bytes()).hexdigest(),
        "state": "applied",
        "upstream-status": "Pending",
        "applies-to": "vllm ==0.32.0",
        "drop-when": "vllm >=0.33 (when upstream has it)",
        "self-test": "tests/patches/test_example.py",
        "files": ["vllm/models/long.py", "vllm/models/short.py"],
    }


def test_a_wheel_that_names_no_commit_reports_none(tree: Path, series: Path):
    (tree / "vllm/_version.py").write_text("__version__ = version = '0.32.0'\n__commit_id__ = commit_id = None\n")
    assert report(open_tree(tree), read_series(series))["vllm"]["commit"] is None


def test_the_patched_tree_is_verified(patched: Path, series: Path):
    assert verify(open_tree(patched), read_series(series)) == []


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("vllm/models/long.py", b"x = 1\n", "vllm/models/long.py has blob .*, but the series ends with"),
        ("vllm/models/old.py", b"back = 1\n", "vllm/models/old.py has blob .*, but the series ends with 0000000"),
        ("vllm/models/.long.py.dsv4-new", b"", "is a leftover"),
    ],
)
def test_what_differs_from_the_series_is_named(patched: Path, series: Path, path: str, data: bytes, message: str):
    (patched / path).write_bytes(data)
    (problem,) = verify(open_tree(patched), read_series(series))
    assert re.search(message, problem)


def test_a_patch_that_does_not_compile_is_named(workshop, tmp_path: Path):
    workshop.commit("Break it", {"vllm/models/long.py": b"def x(:\n"})
    export(workshop.root, "base", tmp_path / "s")
    (problem,) = verify(open_tree(workshop.root), read_series(tmp_path / "s"))
    assert problem.startswith("vllm/models/long.py does not compile: ")


def test_verifying_writes_no_bytecode(patched: Path, series: Path):
    verify(open_tree(patched), read_series(series))
    assert not list(patched.rglob("__pycache__"))
