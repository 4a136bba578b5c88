from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dsv4_serve.patcher
from dsv4_serve.patcher.tree import JOURNAL

ROOM = Path(dsv4_serve.patcher.__file__).resolve().parent


def test_from_pending_to_verified(patch, tree: Path, patched: Path, snapshot):
    assert [line.split()[0] for line in patch("status").out.splitlines()[1:]] == ["pending"] * 3
    assert patch("apply", "--check").out.endswith("files to write: 4\n")
    assert patch("verify").status == 1
    applied = patch("apply")
    assert applied.status == 0
    assert applied.out.endswith("applied now: 3, applied before: 0\n")
    assert snapshot(tree) == snapshot(patched)
    assert patch("apply").out == "applied now: 0, applied before: 3\n"
    assert [line.split()[0] for line in patch("status").out.splitlines()[1:]] == ["applied"] * 3
    assert patch("verify").out.startswith("verified (patches: 3, files: 4): ")


@pytest.mark.parametrize("command", [("status",), ("apply", "--check"), ("apply",), ("verify",), ("report",)])
def test_no_command_but_apply_changes_a_byte_and_apply_none_of_a_drifted_tree(patch, tree: Path, snapshot, command):
    (tree / "vllm/models/short.py").write_text("drifted = 1\n")
    before = snapshot(tree)
    answer = patch(*command)
    assert answer.status == (0 if command == ("report",) else 1)
    assert "short.py has blob " in answer.out + answer.error or '"state": "drifted"' in answer.out
    assert snapshot(tree) == before


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ((), 64, "required: COMMAND"),
        (("patch",), 64, "invalid choice"),
        (("status", "--fuzz", "3"), 64, "unrecognized arguments"),
        (("status", "--series", "9.9.9"), 64, "there is no series '9.9.9'"),
        (("export", "--series", "./x"), 64, "--from, --base"),
        (("status", "--tree", "/dev/null"), 78, "not an unpacked vLLM"),
    ],
)
def test_a_wrong_call_is_one_error_with_its_exit_status(series: Path, argv, status: int, message: str):
    if argv == ("status", "--tree", "/dev/null"):
        argv += ("--series", str(series))
    command = [sys.executable, "-m", "dsv4_serve.patcher", *argv]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == status
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert message in answer.stderr


def test_a_wrong_version_is_78_and_names_both(patch, tree: Path, snapshot):
    (tree / "vllm/_version.py").write_text("__version__ = version = '0.33.0'\n")
    before = snapshot(tree)
    for command in ("status", "apply", "verify", "report"):
        answer = patch(command)
        assert answer.status == 78
        assert "count-one-more is for vllm 0.32.0" in answer.error
        assert "is vllm 0.33.0" in answer.error
    assert snapshot(tree) == before


def test_a_malformed_patch_is_65_with_file_and_line(patch, series: Path):
    file = series / "count-one-more.patch"
    file.write_text(file.read_text().replace("@@ -", "@@ ", 1))
    answer = patch("apply")
    assert answer.status == 65
    assert f"{file}:" in answer.error


def test_an_interrupted_tree_is_78_for_all_but_apply(patch, tree: Path):
    (tree / JOURNAL).write_text('{"phase": "stage", "files": []}')
    for command in (("status",), ("apply", "--check"), ("verify",), ("report",)):
        assert patch(*command).status == 78
    answer = patch("apply")
    assert answer.status == 0
    assert answer.out.startswith("an interrupted apply was undone\n")


def test_report_writes_the_file_that_the_image_carries(patch, tmp_path: Path):
    out = tmp_path / "patches.json"
    assert patch("report", "--out", str(out)).out == ""
    assert json.loads(out.read_text()) == json.loads(patch("report").out)
    answer = patch("report", "--out", str(tmp_path / "absent" / "patches.json"))
    assert answer.status == 78
    assert "No such file" in answer.error


def test_lint_answers_with_findings(patch, series: Path):
    assert patch("lint").out == "findings: 0\n"
    (series / "stray.patch").write_text("")
    answer = patch("lint")
    assert answer.status == 1
    assert answer.out.endswith("findings: 1\n")


def test_export_ends_with_the_findings_of_lint(patch, example, tmp_path: Path):
    target = tmp_path / "repository" / "patcher" / "patches" / "0.32.1"
    answer = patch("export", "--from", str(example.root), "--base", "base", "--series", str(target))
    assert answer.status == 0
    assert answer.out.splitlines()[0] == "wrote     count-one-more.patch"
    assert answer.out.endswith("findings: 0\n")


def test_it_runs_from_a_plain_checkout_without_any_package(series: Path, tree: Path):
    arguments = ["apply", "--series", str(series), "--tree", str(tree)]
    command = [sys.executable, "-E", "-s", "-S", "-m", "patcher", *arguments]
    answer = subprocess.run(command, cwd=ROOM.parent, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_a_reader_that_goes_away_is_no_error(series: Path, tree: Path):
    command = [sys.executable, "-m", "patcher", "report", "--series", str(series), "--tree", str(tree)]
    with subprocess.Popen(command, cwd=ROOM.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_python_m_patcher_works_in_the_checkout(series: Path, tree: Path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-m", "patcher", "status", "--series", str(series), "--tree", str(tree)]
    answer = subprocess.run(command, cwd=ROOM.parent, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_the_installed_vllm_is_never_imported(series: Path, tree: Path):
    (tree / "vllm/__init__.py").write_text("raise RuntimeError('imported')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), *sys.path])}
    command = [sys.executable, "-m", "dsv4_serve.patcher", "status", "--series", str(series)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert f"at {tree}; " in answer.stdout
