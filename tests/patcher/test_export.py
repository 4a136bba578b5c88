from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dsv4_serve.patcher.errors import DataError, PatcherUsageError
from dsv4_serve.patcher.export import export
from dsv4_serve.patcher.series import read_series


def test_a_patch_is_named_after_its_subject_and_listed_in_commit_order(example, tmp_path: Path):
    done = export(example.root, "base", tmp_path / "s")
    names = ["count-one-more.patch", "count-two-more.patch", "move-old-away.patch"]
    assert done == [("wrote", name) for name in [*names, "series"]]
    assert (tmp_path / "s" / "series").read_text().split() == names


def test_the_same_commits_give_the_same_bytes_whatever_the_user_has_configured(
    example, tmp_path: Path, snapshot, monkeypatch: pytest.MonkeyPatch
):
    export(example.root, "base", tmp_path / "plain")
    config = tmp_path / "gitconfig"
    config.write_text(
        "[diff]\nnoprefix = true\ncontext = 9\nrenames = copies\nalgorithm = patience\n"
        "[format]\nsignature = me\nattach = true\nsubjectPrefix = X\nthread = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    export(example.root, "base", tmp_path / "configured")
    assert snapshot(tmp_path / "plain") == snapshot(tmp_path / "configured")


def test_git_am_of_the_series_gives_back_the_same_series(example, tmp_path: Path, snapshot):
    export(example.root, "base", tmp_path / "first")
    series = read_series(tmp_path / "first")
    clone = type(example)(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", example.root, clone.root], check=True)
    clone.git("reset", "--quiet", "--hard", "base")
    clone.git("am", "--quiet", "--keep-non-patch", *(str(p.path) for p in series.patches))
    export(clone.root, "base", tmp_path / "second")
    assert snapshot(tmp_path / "first") == snapshot(tmp_path / "second")


def test_a_dropped_commit_removes_its_patch_and_leaves_the_others_alone(workshop, tmp_path: Path):
    workshop.commit("First", {"vllm/models/long.py": b"1\n"})
    workshop.commit("Second", {"vllm/models/old.py": b"2\n"})
    export(workshop.root, "base", tmp_path / "s")
    workshop.git("reset", "--quiet", "--hard", "HEAD~1")
    done = export(workshop.root, "base", tmp_path / "s")
    assert done == [("unchanged", "first.patch"), ("wrote", "series"), ("removed", "second.patch")]
    assert sorted(file.name for file in (tmp_path / "s").iterdir()) == ["first.patch", "series"]


def test_lines_that_stand_for_another_series_are_kept(workshop, tmp_path: Path):
    workshop.commit("For the main series", {"vllm/models/long.py": b"1\n"})
    export(workshop.root, "base", tmp_path / "0.32.0")
    workshop.git("tag", "main-series")
    workshop.commit("On top of it", {"vllm/models/long.py": b"2\n"})
    (tmp_path / "0.32.0-cpu").mkdir()
    (tmp_path / "0.32.0-cpu" / "series").write_text("../0.32.0/series\n")
    export(workshop.root, "main-series", tmp_path / "0.32.0-cpu")
    assert (tmp_path / "0.32.0-cpu" / "series").read_text() == "../0.32.0/series\non-top-of-it.patch\n"
    assert [p.name for p in read_series(tmp_path / "0.32.0-cpu").patches] == ["for-the-main-series", "on-top-of-it"]


def test_a_commit_without_its_trailers_is_refused_and_nothing_is_written(workshop, tmp_path: Path):
    workshop.commit("No trailers", {"vllm/models/long.py": b"1\n"}, trailers="Signed-off-by: me")
    with pytest.raises(DataError, match=r"commit 1 after base:\d+: the message has no trailer Upstream-Status"):
        export(workshop.root, "base", tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"csrc/ops.cu": b"int x;\n"}, "not a plain path below vllm/"),
        ({"vllm/lib.so": bytes(range(256)) * 9}, r"expected `--- /dev/null`"),
    ],
)
def test_a_commit_that_is_not_a_text_edit_of_the_wheel_is_refused(workshop, tmp_path: Path, edit, message: str):
    workshop.commit("Not of the wheel", edit)
    with pytest.raises(DataError, match=message):
        export(workshop.root, "base", tmp_path / "s")


def test_two_commits_with_one_subject_are_refused(workshop, tmp_path: Path):
    workshop.commit("Same", {"vllm/models/long.py": b"1\n"})
    workshop.commit("Same", {"vllm/models/long.py": b"2\n"})
    with pytest.raises(DataError, match="same subject"):
        export(workshop.root, "base", tmp_path / "s")


def test_a_subject_that_makes_no_file_name_is_refused(workshop, tmp_path: Path):
    workshop.commit("Größer", {"vllm/models/long.py": b"1\n"})
    with pytest.raises(DataError, match="must be ASCII words"):
        export(workshop.root, "base", tmp_path / "s")


@pytest.mark.parametrize("base", ["absent", "--output=/x", "HEAD"])
def test_a_base_without_commits_after_it_is_refused(workshop, tmp_path: Path, base: str):
    with pytest.raises(PatcherUsageError):
        export(workshop.root, base, tmp_path / "s")


def test_a_folder_that_is_not_a_repository_is_refused(tmp_path: Path):
    with pytest.raises(PatcherUsageError, match="not a git repository"):
        export(tmp_path, "base", tmp_path / "s")


def test_without_git_the_error_says_so(workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PatcherUsageError, match="needs git"):
        export(workshop.root, "base", tmp_path / "s")
