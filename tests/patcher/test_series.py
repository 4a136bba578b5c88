from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.patcher.errors import DataError, PatcherUsageError
from dsv4_serve.patcher.series import listed, locate, parse_patch, read_series

MAIL = """From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A Developer <dev@example.org>
Date: Sun, 22 Nov 2026 00:00:00 +0000
Subject: Count one more, with a subject so long that git folds it
 onto a second line

Why.

Upstream-Status: Inappropriate [only this product
 needs it]
Applies-To: vllm ==0.32.0
Drop-When: vllm >=0.33 (when upstream has it)
Self-Test: tests/patches/test_example.py

diff --git a/vllm/empty.py b/vllm/empty.py
new file mode 100644
index 0000000000000000000000000000000000000000..e69de29bb2d1d6434b8b29ae775ad8c2e48c5391
"""
FILE = Path("example.patch")


def test_the_series_is_read_in_its_own_order(series: Path):
    names = [p.name for p in read_series(series).patches]
    assert names == ["count-one-more", "count-two-more", "move-old-away"]


def test_a_patch_carries_subject_trailers_and_files():
    patch = parse_patch(FILE, MAIL.encode())
    assert patch.subject == "Count one more, with a subject so long that git folds it onto a second line"
    assert patch.trailers["Upstream-Status"].value == "Inappropriate [only this product needs it]"
    assert patch.applies_to == ("vllm", "0.32.0")
    assert [d.path for d in patch.diffs] == ["vllm/empty.py"]


@pytest.mark.parametrize("key", ["Upstream-Status", "Applies-To", "Drop-When", "Self-Test"])
def test_a_missing_or_repeated_trailer_is_named(key: str):
    lines = MAIL.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.startswith(key))
    end = at + 2 if lines[at + 1].startswith(" ") else at + 1
    with pytest.raises(DataError, match=rf"example\.patch:\d+: the message has no trailer {key}"):
        parse_patch(FILE, "".join(lines[:at] + lines[end:]).encode())
    with pytest.raises(DataError, match=rf"example\.patch:{end + 1}: {key} is already on line {at + 1}"):
        parse_patch(FILE, "".join(lines[:end] + lines[at:]).encode())


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("Applies-To: vllm ==0.32.0", "Applies-To: vllm >=0.32"),
        ("Applies-To: vllm ==0.32.0", "Applies-To: torch ==0.32.0"),
        ("Drop-When: vllm >=0.33 (when upstream has it)", "Drop-When: soon"),
        ("Drop-When: vllm >=0.33 (when upstream has it)", "Drop-When:"),
        ("Self-Test: tests/patches/test_example.py", "Self-Test: tests/../../etc/x.py"),
        ("Upstream-Status: Inappropriate [only this product\n needs it]", "Upstream-Status: Submitted"),
        ("Upstream-Status: Inappropriate [only this product\n needs it]", "Upstream-Status: Merged https://x.org/1"),
    ],
)
def test_a_malformed_trailer_is_answered_with_its_line_and_what_is_allowed(line: str, bad: str):
    with pytest.raises(DataError, match=r"example\.patch:(9|10|11|12|13): .*; it must be"):
        parse_patch(FILE, MAIL.replace(line, bad).encode())


def test_a_patch_checked_out_with_crlf_is_refused():
    with pytest.raises(DataError, match="CRLF"):
        parse_patch(FILE, MAIL.replace("\n", "\r\n").encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        MAIL.encode().replace(b"Why.", b"\xff"),
        MAIL.split("diff ", maxsplit=1)[0].encode(),
        MAIL[5:].encode(),
    ],
)
def test_a_file_that_is_not_a_patch_mail_is_refused(data: bytes):
    with pytest.raises(DataError, match=r"^example\.patch:\d+: "):
        parse_patch(FILE, data)


@given(st.binary(), st.integers(0, len(MAIL)), st.integers(0, 40))
def test_any_bytes_end_in_a_patch_or_in_our_error(data: bytes, at: int, length: int):
    for candidate in (data, MAIL[:at].encode() + data + MAIL[at + length :].encode()):
        with suppress(DataError):
            parse_patch(FILE, candidate)


@pytest.mark.parametrize(
    "line", ["# disabled.patch", "", "x.patch.no", "/x.patch", "../x.patch", "a/b.patch", "X.patch"]
)
def test_a_line_that_names_no_patch_is_refused_with_its_number(series: Path, line: str):
    (series / "series").write_text(f"count-one-more.patch\n{line}\n")
    with pytest.raises(DataError, match="series:2: "):
        read_series(series)


def test_a_patch_listed_twice_and_one_that_is_missing_are_refused(series: Path):
    (series / "series").write_text("count-one-more.patch\ncount-one-more.patch\n")
    with pytest.raises(DataError, match=r"series:2: count-one-more\.patch is listed twice"):
        read_series(series)
    (series / "series").write_text("absent.patch\n")
    with pytest.raises(DataError, match=r"absent\.patch: No such file"):
        read_series(series)


def test_one_series_builds_on_another(series: Path):
    on_top = series.parent / "0.32.0-cpu"
    on_top.mkdir()
    (series / "move-old-away.patch").rename(on_top / "move-old-away.patch")
    (series / "series").write_text("count-one-more.patch\ncount-two-more.patch\n")
    (on_top / "series").write_text("../0.32.0/series\nmove-old-away.patch\n")
    names = [p.name for p in read_series(on_top).patches]
    assert names == ["count-one-more", "count-two-more", "move-old-away"]


def test_a_series_that_includes_itself_is_refused(series: Path):
    (series / "series").write_text("../0.32.0/series\n")
    with pytest.raises(DataError, match="includes itself"):
        listed(series)


def test_patches_of_one_file_must_follow_from_each_other(series: Path):
    (series / "series").write_text("count-two-more.patch\ncount-one-more.patch\n")
    with pytest.raises(DataError, match=r"count-one-more\.patch:\d+: .* starts from .* export again"):
        read_series(series)


def test_a_patch_that_undoes_an_earlier_one_is_refused(series: Path):
    forth = (series / "count-two-more.patch").read_text()
    pre, post = forth.split("index ", 1)[1].split(" ")[0].split("..")
    back = forth.replace(f"{pre}..{post}", f"{post}..{pre}").replace("-x7 = 8\n+x7 = 9", "-x7 = 9\n+x7 = 8")
    (series / "back.patch").write_text(back)
    (series / "series").write_text("count-one-more.patch\ncount-two-more.patch\nback.patch\n")
    with pytest.raises(DataError, match="returns to"):
        read_series(series)


def test_an_unknown_series_is_answered_with_the_known_ones():
    with pytest.raises(PatcherUsageError, match=r"no series '9\.9\.9'.*Available: "):
        locate("9.9.9")


def test_a_series_is_found_by_its_path(series: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(series.parent)
    assert locate("./0.32.0") == series
    shutil.rmtree(series)
    with pytest.raises(PatcherUsageError):
        locate("./0.32.0")
