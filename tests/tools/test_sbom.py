"""The bill of materials against the files of an image: what is left over is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import sbom

NAMES = ("gcc-12", "dsv4-serve")
SITE = "opt/dsv4/lib/python3.12/site-packages"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with one package of each kind, and what the build and Debian's scripts write."""
    texts = {
        "usr/bin/gcc-12": "",
        "var/lib/dpkg/info/gcc-12:amd64.list": "/.\n/bin\n/bin/gcc-12\n/usr/lib/moved\n",
        "var/lib/dpkg/diversions": "/usr/lib/moved\n/usr/lib/moved.distrib\ngcc-12\n",
        "usr/lib/moved.distrib": "",
        "var/lib/dpkg/status": "",
        f"{SITE}/some_thing/__init__.py": "",
        f"{SITE}/some_thing/__pycache__/__init__.cpython-312.pyc": "",
        f"{SITE}/some_thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Some_Thing\nVersion: 1.0\n",
        f"{SITE}/some_thing-1.0.dist-info/RECORD": (
            "some_thing/__init__.py,sha256=0,0\nsome_thing-1.0.dist-info/METADATA,,\n"
            "some_thing-1.0.dist-info/RECORD,,\n../../../bin/some,,\n"
        ),
        "opt/dsv4/bin/some": "",
        f"{SITE}/vllm/added.py": "",
        sbom.BUILD: json.dumps({"patches": [{"files": ["vllm/added.py"]}]}),
        "etc/passwd": "",
        "proc/1/maps": "",
        sbom.SBOM: json.dumps({"components": [{"name": name} for name in (*NAMES, "some-thing")]}),
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "usr/bin/cc").symlink_to("/etc/alternatives/cc")
    (tmp_path / "bin").symlink_to("usr/bin")
    return tmp_path


def test_an_image_whose_files_all_belong_to_its_bill_passes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sbom.main(root) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    [
        "usr/bin/other",
        "home/file",
        "opt/dsv4/bin/tool",
        f"{SITE}/unlisted.py",
        f"{SITE}/gone/__pycache__/a.cpython-312.pyc",
        "etc/cron.d/job",
        "usr/lib/dsv4/x",
    ],
)
def test_a_file_of_no_package_is_found(root: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("")
    assert sbom.main(root) == 1
    assert f"files of no package: 1\n  /{path}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([*NAMES], "packages that the bill does not name: 1\n  some-thing\n"),
        ([*NAMES, "some.thing", "absent"], "packages of the bill without files: 1\n  absent\n"),
    ],
)
def test_packages_and_bill_have_to_agree(
    root: Path, capsys: pytest.CaptureFixture[str], names: list[str], text: str
) -> None:
    (root / sbom.SBOM).write_text(json.dumps({"components": [{"name": name} for name in names]}))
    assert sbom.main(root) == 1
    assert text in capsys.readouterr().out
