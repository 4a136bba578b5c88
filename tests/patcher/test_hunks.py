"""A diff on another version of its file: at any line, never with fuzz."""

from __future__ import annotations

import pytest

from dsv4_serve.patcher.diff import ABSENT, FileDiff, Hunk, blob_id
from dsv4_serve.patcher.hunks import attempt

OLD = b"".join(b"line %d\n" % n for n in range(20))
NEW = OLD.replace(b"line 10\n", b"line ten\n")
BLOCK = tuple(b"line %d\n" % n for n in range(7, 14))
CHANGED = tuple(line.replace(b"line 10\n", b"line ten\n") for line in BLOCK)


def diff() -> FileDiff:
    return FileDiff("vllm/a.py", blob_id(OLD), blob_id(NEW), (Hunk(7, 7, BLOCK, CHANGED),), 1)


def test_the_same_file_is_patched_as_git_does():
    assert attempt(OLD, diff()).result == NEW


def test_a_hunk_follows_its_lines():
    trial = attempt(b"new\n" * 3 + OLD, diff())
    assert trial.result == b"new\n" * 3 + NEW
    assert trial.places == (10,)


def test_one_changed_line_of_context_is_a_conflict_and_named():
    trial = attempt(OLD.replace(b"line 8\n", b"line eight\n"), diff())
    assert trial.result is None
    assert trial.problems == ("vllm/a.py: hunk 1 of 1 differs at line 9: `line eight` was `line 8`",)


def test_two_places_are_a_conflict():
    assert attempt(b"x\n" + b"".join(BLOCK) * 2, diff()).problems == ("vllm/a.py: hunk 1 of 1 fits in several places",)


def test_lines_that_are_gone_have_no_place():
    assert attempt(b"other\n" * 30, diff()).problems == ("vllm/a.py: hunk 1 of 1 has no place; it was at line 8",)


def test_a_change_that_is_there_is_upstream():
    trial = attempt(b"more\n" + NEW, diff())
    assert trial.upstream
    assert not trial.problems


@pytest.mark.parametrize(
    ("data", "upstream", "problem"),
    [(None, False, ""), (NEW, True, ""), (b"x\n", False, "vllm/a.py exists, with other content")],
)
def test_a_new_file(data: bytes | None, upstream: bool, problem: str):
    lines = tuple(NEW.splitlines(keepends=True))
    trial = attempt(data, FileDiff("vllm/a.py", ABSENT, blob_id(NEW), (Hunk(0, 0, (), lines),), 1))
    assert trial.upstream == upstream
    assert trial.problems == ((problem,) if problem else ())
    assert trial.result == (None if problem else NEW)


def test_a_file_that_is_gone():
    assert attempt(None, diff()).problems == ("vllm/a.py is gone",)
