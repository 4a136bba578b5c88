"""Every test has one kind, by the rules of tests/README.md, and a run ends with the reasons of its skips."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kinds import BESIDE, HERE, KINDS, without_group
from tests.support.program import environment

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.process, pytest.mark.slow]

TESTS = """
import pytest

def test_plain(): pass

@pytest.mark.gpu
def test_named(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.deep
def test_deep(): pass

@pytest.mark.parametrize("number", range(3))
def test_skipped(number): pytest.skip("no gate is installed")

@pytest.mark.skip(reason="not on Sundays")
def test_marked(): pass
"""


def run(folder: Path, *words: str, text: str = TESTS, **env: str) -> str:
    file = folder / "test_some.py"
    file.write_text(text)
    plugins = ["-p", "xdist", "-p", "tests.support.kinds", "-p", "tests.support.skips", "-p", "no:cacheprovider"]
    argv = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), *plugins, *words, str(file)]
    env = environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | env  # the others take three quarters of a start
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_every_test_of_this_run_has_one_kind(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        assert sum(item.get_closest_marker(kind) is not None for kind in KINDS) == 1, item.nodeid


@pytest.mark.parametrize(("kind", "name"), [("gpu", "test_named"), ("vllm", "test_slow")])
def test_a_mark_decides(tmp_path: Path, kind: str, name: str) -> None:
    listed = run(tmp_path, "-q", "--collect-only", "-m", kind).splitlines()
    assert [line.split("::")[1] for line in listed if "::" in line] == [name]


@pytest.mark.parametrize(("deep", "found"), [("", []), ("1", ["test_deep"])])
def test_a_deep_test_runs_only_where_it_is_asked_for(tmp_path: Path, deep: str, found: list[str]) -> None:
    listed = run(tmp_path, "-q", "--collect-only", "-m", "deep", TEST_DEEP=deep).splitlines()
    assert [line.split("::")[1] for line in listed if "::" in line] == found


def test_what_takes_longest_begins(tmp_path: Path) -> None:
    slow, quick = tmp_path / "z_slow.py", tmp_path / "a_quick.py"
    slow.write_text("import pytest\n\n@pytest.mark.slow\n@pytest.mark.process\ndef test_slow(): pass\n")
    quick.write_text("def test_quick(): pass\n")
    listed = run(tmp_path, "-q", "--collect-only", str(quick), str(slow)).splitlines()
    names = [line.split("::")[1] for line in listed if "::" in line]
    assert [name for name in names if name in ("test_quick", "test_slow")][-2:] == ["test_slow", "test_quick"]


def test_all_that_runs_beside_the_shared_servers_is_there() -> None:
    assert [place for places in BESIDE.values() for place in places if not (HERE / place).exists()] == []


def test_two_kinds_are_refused(tmp_path: Path) -> None:
    both = TESTS.replace("@pytest.mark.gpu", "@pytest.mark.unit\n@pytest.mark.gpu")
    assert "test_named has more than one kind: unit, gpu" in run(tmp_path, text=both)


@pytest.mark.parametrize("jobs", ["0", "2"])
def test_a_run_ends_with_the_reasons_of_its_skips_and_then_the_counts(tmp_path: Path, jobs: str) -> None:
    *_, reasons, counts = run(tmp_path, "-n", jobs).splitlines()
    assert reasons == "skipped 4: 3 × no gate is installed; 1 × not on Sundays"
    assert "3 passed, 4 skipped" in counts


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("tests/test_a.py::test_b@a/test_a.py", "tests/test_a.py::test_b"),
        ("tests/test_a.py::test_b[1@2]@gpu", "tests/test_a.py::test_b[1@2]"),
        ("tests/test_a.py::test_b[1@2]", "tests/test_a.py::test_b[1@2]"),
        ("tests/test_a.py::test_b", "tests/test_a.py::test_b"),
    ],
)
def test_what_failed_is_tried_again_by_the_name_that_it_has_without_a_group(name: str, alone: str) -> None:
    assert without_group(name) == alone


def test_side_by_side_a_kind_that_is_serial_is_one_group(tmp_path: Path) -> None:
    assert "::test_named@gpu" in run(tmp_path, "-v", "-n", "1", "--dist", "loadgroup")
