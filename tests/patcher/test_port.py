"""`dsv4 patch port` on a small vLLM and on a later one."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.patcher import cli
from dsv4_serve.patcher.export import export

UTIL = """\
    def cdiv(a, b):
        return -(-a // b)


    class Config:
        moe_backend: str = "auto"

        def __init__(self, name, size=1):
            self.name = name
            self.shared_depth = size
"""
MODEL = """\
    import re

    from vllm.util import Config, cdiv

    LIMIT = 4


    class Loader:
        first = 1
        second = 2
        third = 3

        def load(self, weights):
            seen = set()
            ranks = 2
            for name in weights:
                # one of them
                seen.add(name)
                print(name)
            # the end
            return seen


    def finish(self):
        '''Rewrite names.

        Add and rename weights.
        '''
        return None
"""
EDIT = [
    (
        "            return seen",
        "            check(cdiv(len(seen), ranks), self.draft.shared_depth)\n            return seen",
    ),
    (
        "    class Loader:",
        "    def check(count, depth):\n        return Config('x', size=count), LIMIT\n\n\n    class Loader:",
    ),
]


def text(source: str, *edits: tuple[str, str]) -> bytes:
    for old, new in edits:
        assert old in source
        source = source.replace(old, new, 1)
    return textwrap.dedent(source).encode()


@pytest.fixture
def ported(workshop, tmp_path: Path, capsys, monkeypatch) -> Callable[..., tuple[int, str]]:
    """Run `port` of a series with one patch on a tree with the given files; an empty product uses `vllm.util` too."""
    workshop.commit("vLLM", {"vllm/util.py": text(UTIL), "vllm/model.py": text(MODEL)})
    workshop.git("tag", "--force", "base")
    base = Path(shutil.copytree(workshop.root, tmp_path / "base", ignore=shutil.ignore_patterns(".git")))
    workshop.commit("Check what was loaded", {"vllm/model.py": text(MODEL, *EDIT)})
    series = tmp_path / "repository/patcher/patches/0.32.0"
    export(workshop.root, "base", series)
    (tmp_path / "repository/demo").mkdir()
    (tmp_path / "repository/demo/a.py").write_text("import vllm.util as u\n\nsetattr(u, 'cdiv', u.Config('a'))\n")
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "repository/patcher/cli.py"))

    def run(files: dict[str, bytes | None], applied: bool = False) -> tuple[int, str]:
        tree = shutil.copytree(base, tmp_path / "later")
        (tree / "vllm/_version.py").write_text("__version__ = version = '0.33.0'\n")
        for path, data in files.items():
            if data is None:
                (tree / path).unlink()
            else:
                (tree / path).write_bytes(data)
        if applied:
            shutil.copy(workshop.root / "vllm/model.py", base / "vllm/model.py")
        status = cli.main(["port", "--series", str(series), "--base", str(base), "--tree", str(tree)])
        return status, capsys.readouterr().out

    return run


@pytest.mark.parametrize("applied", [False, True])
def test_the_same_files_take_the_patch(ported, applied: bool):
    status, out = ported({}, applied)
    assert status == 0
    assert "\napplies  check-what-was-loaded\n" in out
    assert "patches: applies 1, conflict 0, upstream 0\n" in out
    assert ", gone 0, changed 0\n" in out


def test_moved_lines_ask_for_another_export(ported):
    status, out = ported({"vllm/model.py": text(MODEL, ("    LIMIT", "    # more\n    LIMIT"))})
    assert status == 0
    assert "the text fits; export it again for the new ids" in out


def test_a_changed_line_is_a_conflict_with_the_warning(ported):
    status, out = ported({"vllm/model.py": text(MODEL, ("# the end", "# the finish"))})
    assert status == 1
    assert "conflict check-what-was-loaded vllm/model.py: hunk 2 of 2 differs at line 20: `# the finish`" in out
    assert "`patch -F3`" in out


def test_a_patch_that_is_there_is_to_be_dropped(ported):
    status, out = ported({"vllm/model.py": text(MODEL, *EDIT)})
    assert status == 1
    assert "upstream check-what-was-loaded every change is there; drop the patch" in out


def test_a_hunk_in_another_function_is_a_conflict(ported):
    renamed = text(MODEL, ("def load(", "def consume("))
    status, out = ported({"vllm/model.py": renamed})
    assert status == 1
    assert "hunk 2 would stand in Loader.consume, made for Loader.load" in out
    assert "gone     vllm.model.Loader.load" in out


def test_a_name_that_moved_is_gone_and_found_again(ported):
    without = text(UTIL).split(b"class Config")
    files = {
        "vllm/util.py": b"class Config" + without[1],
        "vllm/maths.py": without[0],
        "vllm/model.py": text(
            MODEL, ("import Config, cdiv", "import Config"), ("LIMIT = 4", "from vllm.maths import cdiv")
        ),
    }
    status, out = ported(files)
    assert status == 1
    assert "gone     vllm.util.cdiv; now in vllm/maths.py\n         used by demo/a.py:3\n" in out
    assert "gone     vllm.model.LIMIT\n         used by check-what-was-loaded\n" in out
    assert "vllm.model.cdiv" not in out  # it is imported there, from the new place


BY_CALL = """\
    import importlib
    from importlib import import_module

    PLACE = "vllm"
    cdiv = import_module("vllm.util").cdiv
    re, util = import_module("re"), importlib.import_module(f"{PLACE}.util")
    util.Config("a")
    importlib.import_module("vllm.util").Config("b")
    SOURCE = f"https://example.invalid/{PLACE}/deep/maths.py"
"""


def test_names_of_a_module_that_is_imported_by_a_call(ported, tmp_path: Path):
    (tmp_path / "repository/tools").mkdir()
    (tmp_path / "repository/tools/b.py").write_bytes(text(BY_CALL))
    _, out = ported({"vllm/util.py": b"", "vllm/model.py": text(MODEL, ("from vllm.util", "from vllm.other"))})
    assert "gone     vllm.util.cdiv\n         used by demo/a.py:3, tools/b.py:5\n" in out
    assert "gone     vllm.util.Config\n         used by demo/a.py:3, tools/b.py:7, tools/b.py:8\n" in out


def test_a_module_that_is_gone_is_found_in_every_call_that_imports_it(ported, tmp_path: Path):
    (tmp_path / "repository/tools").mkdir()
    (tmp_path / "repository/tools/b.py").write_bytes(text(BY_CALL))
    (tmp_path / "base/vllm/deep").mkdir()
    (tmp_path / "base/vllm/deep/maths.py").touch()
    _, out = ported({"vllm/util.py": None, "vllm/deep/maths.py": None})
    assert "gone     vllm.util\n         used by demo/a.py:1, demo/a.py:3, tools/b.py:5, tools/b.py:8\n" in out
    assert "gone     vllm.deep.maths\n         used by tools/b.py:9\n" in out


def test_a_signature_that_changed_is_shown_with_both(ported):
    status, out = ported({"vllm/util.py": text(UTIL, ("cdiv(a, b)", "cdiv(a, b, *, up=True)"))})
    assert status == 1
    assert "changed  vllm.util.cdiv(a, b) -> (a, b, *, up=...)" in out


def test_a_call_that_no_longer_fits_a_class(ported):
    status, out = ported({"vllm/util.py": text(UTIL, ("name, size=1", "name, *, width=1"), ("= size", "= width"))})
    assert status == 1
    assert "changed  vllm.util.Config(self, name, size=...) -> (self, name, *, width=...)" in out
    assert "demo/a.py" not in out


def test_a_local_name_and_an_attribute_that_are_gone(ported):
    files = {
        "vllm/model.py": text(MODEL, ("            ranks = 2\n", "")),
        "vllm/util.py": text(UTIL, ("self.shared_depth", "self.depth")),
    }
    status, out = ported(files)
    assert status == 1
    assert "gone     vllm.model.Loader.load, local name ranks\n" in out
    assert "gone     attribute .shared_depth\n" in out


def test_a_module_that_is_gone(ported):
    _, out = ported({"vllm/util.py": None, "vllm/model.py": None})
    assert "conflict check-what-was-loaded vllm/model.py is gone" in out
    assert "gone     vllm.util\n         used by demo/a.py:1" in out


def test_a_base_that_is_another_vllm_is_78(ported, tmp_path: Path):
    (tmp_path / "base/vllm/model.py").write_text("another = 1\n")
    assert ported({}) == (78, "")
