"""What `make mutants` changes and where, and the page of its results; cosmic-ray itself is not installed here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tools.mutants import PAGE, RESULTS, ROOT, Mutant, Score, in_place, read_table, results

TABLE = read_table()
SOURCE = """
import functools

def double(x):
    return 2 * x

class Box:
    @property
    def size(self):
        return 3

    @classmethod
    def make(cls):
        return cls()

@functools.cache
def kept():
    return "old"
"""


def test_the_page_is_made_from_the_results() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert results.page(text) == text, "run `python -m tools.mutants --page`"


def test_every_module_of_the_table_has_a_result_at_the_least_score() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert found.keys() == {target.file for target in TABLE.targets}
    assert {file for file, score in found.items() if score["killed"] < TABLE.least * score["mutants"]} == set()


@pytest.mark.parametrize("target", TABLE.targets, ids=lambda target: target.file)
def test_a_module_and_its_tests_exist(target) -> None:
    assert [path for path in (target.file, *target.tests) if not (ROOT / path).is_file()] == []
    for name in target.slow:
        file, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("entry", TABLE.equivalent, ids=lambda entry: f"{entry[0]}: {entry[1]}")
def test_a_line_whose_mutant_does_not_count_is_still_there(entry: tuple[str, str, str]) -> None:
    file, line, _ = entry
    lines = {" ".join(text.split()) for text in (ROOT / file).read_text(encoding="utf-8").splitlines()}
    assert line in lines


def test_a_mutant_counts_unless_the_table_gives_a_reason() -> None:
    file, line, becomes = next(iter(TABLE.equivalent))
    assert not TABLE.counts(Mutant(file, 1, line, becomes))
    assert TABLE.counts(Mutant(file, 1, line, becomes + " + 1"))
    assert not TABLE.counts(Mutant(file, 1, "x", "@dataclass(frozen=False)"))


def test_a_score_is_the_share_that_was_noticed() -> None:
    assert Score("a.py", 40, 38, 2, 1).share == 0.95


def test_a_row_has_the_figures_and_where_they_are_from() -> None:
    entry = {
        "mutants": 40,
        "killed": 39,
        "equivalent": 2,
        "seconds": 7,
        "date": "2026-11-29",
        "hardware": "2 CPU cores",
    }
    assert results.rows({"a.py": entry}).splitlines()[-1] == (
        "| `a.py` | 40 | 39 | 97.5% | 2 | 7 | 2026-11-29, 2 CPU cores |"
    )


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module whose functions others have imported already."""
    path = tmp_path / "loaded_here.py"
    path.write_text(SOURCE)
    module = ModuleType("loaded_here")
    module.__file__ = str(path)
    exec(compile(SOURCE, path, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "loaded_here", module)
    return module


@pytest.mark.parametrize(
    ("name", "old", "new", "call"),
    [
        ("double", "2 * x", "5 * x", lambda m, double: double(1) == 5),
        ("Box.size", "return 3", "return 4", lambda m, _: m.Box().size == 4),
        ("Box.make", "cls()", "None", lambda m, _: m.Box.make() is None),
        ("kept", '"old"', '"new"', lambda m, _: m.kept() == "new"),
    ],
)
def test_a_changed_function_takes_the_place_of_the_one_that_was_imported(loaded, name, old, new, call) -> None:
    double = loaded.double
    assert loaded.kept() == "old"
    assert not call(loaded, double)
    in_place.replace_code(loaded.__file__, name, SOURCE.replace(old, new))
    assert call(loaded, double)


def test_only_the_body_of_a_function_is_changed_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text(SOURCE)
    monkeypatch.setattr(in_place, "ROOT", tmp_path)
    where = {number: in_place.function_at("module.py", number) for number in range(1, 20)}
    names = {number: place.name for number, place in where.items() if place}
    assert names == {5: "double", 10: "Box.size", 14: "Box.make", 18: "kept"}
