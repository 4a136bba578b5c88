"""What those who carry on rely on: the changelog, the commit line, workflows and templates."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
TARGET = re.compile(r"(?:run: |`)make ([a-z -]+)")
FORMS = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml"]


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_newest_release_of_the_changelog_is_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    unreleased, newest, *_ = HEADING.findall(changelog())
    assert unreleased == ("Unreleased", "")
    assert newest[0] == version
    assert newest[1]


def test_the_changelog_has_the_groups_of_keep_a_changelog() -> None:
    groups = re.findall(r"^### (.+)$", changelog(), re.MULTILINE)
    assert groups
    assert set(groups) <= GROUPS


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_workflows_and_templates_are_yaml_and_call_targets_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    targets = {name for found in TARGET.findall(text) for name in found.split()}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in sorted(targets) if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_ci_runs_what_the_repository_calls_ci() -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["lint-and-test"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in commands
    script = (ROOT / ".ci/run").read_text()
    for command in (".ci/programs", "make lint", "make test"):
        assert command in script


def test_a_bug_report_asks_for_the_support_bundle() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
    assert "bundle" in required
    assert "dsv4 bundle --support" in str(form)


def test_the_form_for_results_asks_for_the_shared_file_and_its_consent() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/result.yml").read_text())
    required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
    assert required == {"file"}
    assert "python -m tools.community check" in str(form)
    [consent] = [field["attributes"]["options"] for field in form["body"] if field["type"] == "checkboxes"]
    assert all(option["required"] for option in consent)


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("doctor: report every unreadable shard", True),
        ("tests, tools: name what they run", True),
        ("README: `make demo` first", True),
        ("Merge branch 'x'", True),
        ("Report every unreadable shard", False),
        ("doctor: ", False),
        ("doctor: report every unreadable shard.", False),
        ("", False),
    ],
)
def test_a_commit_line_names_its_area(tmp_path: Path, line: str, good: bool) -> None:
    (tmp_path / "message").write_text(line + "\n\nbody\n")
    run = subprocess.run(
        [ROOT / "tools/commit_line.sh", tmp_path / "message"], capture_output=True, text=True, check=False
    )
    assert (run.returncode == 0) is good
    assert ("area: imperative" in run.stderr) is not good
