from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dsv4_serve.patcher.lint import lint


def rewrite(file: Path, find: str, put: str) -> int:
    text = file.read_text()
    assert find in text
    file.write_text(text.replace(find, put))
    return text[: text.index(find)].count("\n") + 1


def test_a_clean_series_has_no_findings(series: Path):
    assert lint(series) == ([], [])


@pytest.mark.parametrize("name", ["forgotten.patch", "count-one-more.patch.no", "README.md"])
def test_a_file_that_the_series_does_not_list_is_found(series: Path, name: str):
    (series / name).write_text("")
    assert lint(series)[0] == [f"{series / name}:1: this file is not listed in `series`; add it there or delete it"]


def test_every_broken_patch_is_found_not_only_the_first(series: Path):
    rewrite(series / "count-one-more.patch", "Upstream-Status: Pending", "Upstream-Status: Maybe")
    (series / "move-old-away.patch").unlink()
    findings, _ = lint(series)
    assert len(findings) == 2
    assert "count-one-more.patch:8: Upstream-Status is 'Maybe'" in findings[0]
    assert "move-old-away.patch: No such file" in findings[1]


@pytest.mark.parametrize("version", ["0.32", "0.32.0", "0.31.5", "0.9"])
def test_a_drop_when_that_is_already_true_is_found(series: Path, version: str):
    file = series / "count-two-more.patch"
    line = rewrite(file, "Drop-When: vllm >=0.33", f"Drop-When: vllm >={version}")
    assert lint(series)[0] == [f"{file}:{line}: Drop-When is true for vLLM 0.32.0; drop the patch"]


@pytest.mark.parametrize("value", ["vllm >=0.32.1", "vllm >=0.100", "vllm >=1", "when its loader asks the index"])
def test_a_drop_when_in_the_future_or_in_prose_is_no_finding(series: Path, value: str):
    rewrite(series / "count-two-more.patch", "Drop-When: vllm >=0.33 (when upstream has it)", f"Drop-When: {value}")
    assert lint(series)[0] == []


def test_a_self_test_that_does_not_exist_is_found(series: Path):
    file = series / "count-two-more.patch"
    line = rewrite(file, "test_example.py", "test_absent.py")
    assert lint(series)[0] == [f"{file}:{line}: Self-Test names tests/patches/test_absent.py, which does not exist"]


def test_without_a_tests_folder_the_rule_is_named_as_unchecked(series: Path):
    shutil.rmtree(series.parents[2] / "tests")
    findings, notes = lint(series)
    assert findings == []
    assert notes == [f"self-tests not checked: there is no {series.parents[2] / 'tests'}"]


def test_a_broken_chain_is_found(series: Path):
    (series / "series").write_text("count-two-more.patch\ncount-one-more.patch\nmove-old-away.patch\n")
    (finding,) = lint(series)[0]
    assert "count-one-more.patch" in finding
    assert "but the patch before it" in finding


def test_a_file_outside_the_wheel_is_found(series: Path):
    rewrite(series / "count-two-more.patch", "vllm/models/long.py", "csrc/moe/ops.cu")
    (finding,) = lint(series)[0]
    assert "not a plain path below vllm/" in finding
