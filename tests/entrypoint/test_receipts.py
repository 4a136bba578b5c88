"""Receipts: written once, read back in order, and what is no receipt is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import receipts
from dsv4_serve.entrypoint.errors import HostError, UserError

ROOT = Path(__file__).parents[2]


def test_a_receipt_is_read_back_with_its_kind_and_date(tmp_path: Path) -> None:
    path = receipts.write(tmp_path, "bench", {"subject": "W4A16 h200/tp2", "rows": []})
    assert path.parent == tmp_path / "bench"
    assert path.name.startswith("w4a16-h200-tp2-2")
    [read] = receipts.read(tmp_path)
    assert (read["kind"], read["subject"], read["file"]) == ("bench", "W4A16 h200/tp2", str(path))
    assert read["date"].endswith("+00:00")


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    paths = [receipts.write(tmp_path, "smoke", {"subject": "x", "number": number}) for number in range(5)]
    assert len(set(paths)) == 5
    assert [json.loads(path.read_text())["number"] for path in paths] == [0, 1, 2, 3, 4]


def test_the_oldest_comes_first_whatever_its_kind(tmp_path: Path) -> None:
    for kind, date in (("bench", "2026-11-22T10:00:00+00:00"), ("eval", "2026-11-21T10:00:00+00:00")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.json").write_text(json.dumps({"kind": kind, "date": date}))
    assert [one["kind"] for one in receipts.read(tmp_path)] == ["eval", "bench"]
    assert [one["kind"] for one in receipts.read(tmp_path, "bench")] == ["bench"]


@pytest.mark.parametrize(
    "text", ["no json", "[]", "{}", '{"kind": "bench"}', '{"kind": "other", "date": "2026-11-22"}']
)
def test_a_file_that_is_no_receipt_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UserError, match=r"other\.json: no receipt"):
        receipts.read(tmp_path)


def test_an_unknown_kind_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no kind of receipt: bench, eval, smoke"):
        receipts.write(tmp_path, "layout", {"subject": "x"})


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be written"):
        receipts.write(tmp_path / "file", "bench", {"subject": "x"})


def test_the_receipts_of_this_repository_are_all_read() -> None:
    kinds = {one["kind"] for one in receipts.read(ROOT / "qualification")}
    assert {"layout", "faults"} <= kinds
