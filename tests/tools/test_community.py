"""The folder of other people's results: what is in it is valid, and shown under their names."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint import results
from dsv4_serve.entrypoint.catalog import community as listed
from dsv4_serve.entrypoint.catalog import listing
from dsv4_serve.entrypoint.cli import profiles, what_fits_text
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.resolve.what_fits import what_fits
from tests.entrypoint.test_shared_result import made
from tests.support.plans import CATALOG, request
from tools import community


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, with a list and a page of its own."""
    (tmp_path / "community.json").write_text("[]\n")
    (tmp_path / "page.md").write_text("# Page\n\n<!-- table: community -->\n" + community.NONE + "<!-- end -->\n")
    (tmp_path / "given").mkdir()
    monkeypatch.setattr(community, "FOLDER", tmp_path / "given")
    monkeypatch.setattr(community, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(community, "ROOT", tmp_path)
    monkeypatch.setattr(listed, "FILE", tmp_path / "community.json")
    return tmp_path / "given"


def put(folder: Path, name: str = "nobody-h200.json", **changed: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(made(date=datetime.now(UTC).date().isoformat(), **changed)))
    return path


def test_the_shipped_folder_its_list_and_its_page_agree() -> None:
    assert community.main(["check"]) == 0


def test_a_result_is_shown_by_hardware_under_its_owners_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder)
    assert community.main(["check"]) == 1
    assert "out of date: run `python -m tools.community write`" in capsys.readouterr().err
    assert community.main(["write"]) == 0
    assert community.main(["check"]) == 0
    page = community.PAGE.read_text()
    assert "### h200" in page
    assert "community, nobody, " in page
    assert "210.97 tok/s at batch 1 (256 in, 256 out)" in page
    assert "dummy weights" in page


def test_a_result_takes_the_place_of_unmeasured_in_the_lists(folder: Path) -> None:
    assert "unmeasured" in profiles.text(listing.listing(CATALOG))
    put(folder, profile="128k", model="acti", gpus=2)
    community.main(["write"])
    listed._parsed.cache_clear()
    [entry] = [one for one in listing.listing(CATALOG) if one["name"] == "128k"]
    assert [one["who"] for one in entry["community"]] == ["nobody"]
    text = " ".join(profiles.text([{**entry, "measured": []}]).split())
    assert "community, nobody, " in text
    assert "2 x h200, driver 580.159.04, acti (dummy weights" in text
    assert "unmeasured" not in text
    fits = what_fits_text.text(what_fits(CATALOG, request(), HostGpus("h200", "test", 2)), named=True)
    assert "211 at batch 1, nobody [" in fits
    others = what_fits_text.text(what_fits(CATALOG, request(), HostGpus("h200-nvl", "test", 2)), named=True)
    assert "nobody" not in others


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "no json", "it is not valid JSON"),
        ("a.json", json.dumps({"kind": "bench"}), "field required"),
        ("My Box.json", json.dumps(made()), "its name has to be"),
        ("a.json", json.dumps(made(who="")), "who is empty"),
        ("a.txt", "hello", "holds results only"),
    ],
)
def test_a_bad_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str) -> None:
    (folder / name).write_text(text)
    assert community.main(["check"]) == 1
    assert f"{name}: " in (heard := capsys.readouterr().err)
    assert said in heard


def test_one_file_is_checked_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.json").write_text("{}")
    assert community.main(["check", str(put(folder))]) == 0
    assert community.main(["check", str(folder / "none.json")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert community.main(["look"]) == 64


def test_the_report_of_our_results_does_not_read_them(tmp_path: Path) -> None:
    (tmp_path / "community").mkdir()
    put(tmp_path / "community")
    assert results.read(tmp_path) == []


def test_a_qualification_says_what_failed() -> None:
    checks = [{"name": n, "verdict": v, "detail": ""} for n, v in (("a", "pass"), ("b", "fail"), ("c", "skip"))]
    one = {**made(), "rows": [], "checks": checks, "file": "x.json"}
    assert listed.figures(one) == "1 of 2 checks passed, failed: b"
    assert listed.short(one) == "qualified, nobody"
