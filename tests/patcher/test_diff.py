from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsv4_serve.patcher.diff import ABSENT, blob_id, parse_diff, patched
from dsv4_serve.patcher.errors import DataError, PatcherError
from tests.support.examples import examples

OLD = b"one\ntwo\nthree\n"
NEW = b"one\n2\nthree\n"
EDIT = (
    f"diff --git a/vllm/x.py b/vllm/x.py\nindex {blob_id(OLD)}..{blob_id(NEW)} 100644\n"
    "--- a/vllm/x.py\n+++ b/vllm/x.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
).encode()


def parse(data: bytes):
    return parse_diff(data.split(b"\n"), "x.patch")


def test_blob_id_is_the_one_that_git_gives():
    answer = subprocess.run(["git", "hash-object", "--stdin"], input=OLD, capture_output=True, check=True)
    assert blob_id(OLD) == answer.stdout.decode().strip()
    assert blob_id(None) == ABSENT


def test_a_diff_turns_exactly_its_own_file_into_the_new_one():
    (diff,) = parse(EDIT)
    assert patched(OLD, diff) == NEW


@pytest.mark.parametrize("other", [NEW, OLD + b"\n", OLD.replace(b"\n", b"\r\n"), b"zero\n" + OLD, OLD[:-1], b"", None])
def test_other_bytes_are_refused_without_fuzz_or_offset(other: bytes | None):
    (diff,) = parse(EDIT)
    with pytest.raises(PatcherError, match="expected"):
        patched(other, diff)


@pytest.mark.parametrize(
    ("find", "put"),
    [
        (b"@@ -1,3 +1,3 @@", b"@@ -2,3 +2,3 @@"),
        (b"@@ -1,3 +1,3 @@", b"@@ -1,3 +2,3 @@"),
        (b"@@ -1,3 +1,3 @@", b"@@ -0,3 +0,3 @@"),
        (b" three", b" Three"),
        (b"+2", b"+3"),
    ],
)
def test_a_diff_whose_lines_disagree_with_its_blob_ids_is_refused(find: bytes, put: bytes):
    (diff,) = parse(EDIT.replace(find, put))
    with pytest.raises(PatcherError):
        patched(OLD, diff)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../vllm/x.py", "vllm/../x.py", "vllm/./x.py", "vllm//x.py", "x.py", "tests/x.py", "vllm", "vllm/",
     "vllm/.git/config", "vllm/x\0.py", "vllm/ü.py", '"vllm/x.py"', "vllm/x y.py", "csrc/x.cu", "vllmx/x.py"],
)  # fmt: skip
def test_a_path_that_is_not_a_plain_one_below_vllm_is_refused_with_its_line(path: str):
    hostile = EDIT.replace(b"vllm/x.py", path.encode())
    with pytest.raises(DataError, match=r"x\.patch:1: .* not a plain path below vllm/"):
        parse(hostile)


@pytest.mark.parametrize(
    "header",
    [
        "new file mode 120000\nindex {a}..{p}",
        "index {o}..{p} 120000",
        "index {o}..{p} 160000",
        "old mode 100644\nnew mode 100755\nindex {o}..{p}",
        "similarity index 90%\nrename from vllm/x.py\nrename to vllm/y.py\nindex {o}..{p} 100644",
        "index {o}..{p}\nGIT binary patch\nliteral 3\nKc${{Nkz",
        "index {o}..{p} 100644\nBinary files a/vllm/x.py and b/vllm/x.py differ",
        "index 0123456..789abcd 100644",
        "deleted file mode 100644\nindex {o}..{p}",
        "new file mode 100644\nindex {o}..{p}",
        "new file mode 100755\nindex {a}..{p}",
        "index {a}..{p} 100644",
        "",
    ],
)
def test_links_modes_renames_and_binary_hunks_are_refused_with_their_line(header: str):
    header = header.format(a=ABSENT, o=blob_id(OLD), p=blob_id(NEW))
    with pytest.raises(DataError, match=r"x\.patch:[2-5]: "):
        parse(f"diff --git a/vllm/x.py b/vllm/x.py\n{header}\n".encode() + EDIT.split(b"\n", 2)[2])


def test_a_rename_is_refused():
    with pytest.raises(DataError, match=r"x\.patch:1: renames"):
        parse(EDIT.replace(b"b/vllm/x.py", b"b/vllm/y.py", 1))


def test_one_file_changed_twice_by_one_patch_is_refused():
    with pytest.raises(DataError, match="same file twice"):
        parse(EDIT + EDIT)


@pytest.mark.parametrize("cut", range(1, EDIT.count(b"\n")))
def test_a_diff_cut_short_at_any_line_is_refused(cut: int):
    with pytest.raises(DataError, match=r"x\.patch:\d+: "):
        parse(b"\n".join(EDIT.split(b"\n")[:cut]))


def test_a_hunk_with_a_huge_number_is_refused():
    with pytest.raises(DataError, match="expected a hunk"):
        parse(EDIT.replace(b"@@ -1,3", b"@@ -" + b"9" * 5000 + b",3"))


@given(st.binary())
def test_any_bytes_end_in_a_diff_or_in_our_error(data: bytes):
    for candidate in (data, EDIT[: len(data)] + data, EDIT.split(b"\n")[0] + b"\n" + data):
        try:
            for diff in parse(candidate):
                patched(OLD, diff)
        except PatcherError:
            pass


@given(st.data())
def test_any_edit_of_a_valid_diff_yields_the_named_bytes_or_our_error(data: st.DataObject):
    at = data.draw(st.integers(0, len(EDIT)))
    end = data.draw(st.integers(at, min(len(EDIT), at + 40)))
    edited = EDIT[:at] + data.draw(st.binary(max_size=20)) + EDIT[end:]
    try:
        for diff in parse(edited):
            assert blob_id(patched(OLD, diff)) == diff.post
    except PatcherError:
        pass


LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b" c\n", b"-d\n", b"+e\n", b"\n", b"\\ f\n", b"g\r\n", b"h\x0b\n"]))


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, LINES, st.sampled_from([b"", b"end"]), st.sampled_from([b"", b"end"]))
def test_what_git_diffs_is_applied_to_the_byte(
    tmp_path: Path, old: list[bytes], new: list[bytes], end: bytes, to: bytes
):
    before, after = b"".join(old) + end, b"".join(new) + to
    if before == after:
        return
    if not (tmp_path / ".git").exists():
        subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    file = tmp_path / "vllm" / "x.py"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(before)
    subprocess.run(["git", "-C", tmp_path, "-c", "core.autocrlf=false", "add", "."], check=True)
    file.write_bytes(after)
    command = ["git", "-C", tmp_path, "-c", "core.autocrlf=false", "diff", "--text", "--full-index", "--no-renames"]
    (diff,) = parse(subprocess.run(command, check=True, capture_output=True).stdout)
    assert patched(before, diff) == after
