"""`dsv4 kernels` from end to end, in this process: exit statuses, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.cli.main import main
from dsv4_serve.entrypoint.supervisor import kernel_cache, provenance
from tests.support.packs import FILES, KEY, cache

BUILD = KEY["build"]


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with H200s in name, and the build of the packs in tests/support/packs.py."""
    for name, value in {"PROFILE": "524k", "MODEL": "w4a16", "HARDWARE": "h200", "TP": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "a"))
    monkeypatch.setattr(kernel_cache, "build", lambda *_: BUILD)
    monkeypatch.setattr(provenance, "patches", dict)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["kernels", *argv])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The path and digest of a pack that `dsv4 kernels export` made."""
    cache(tmp_path / "a")
    status, out, _ = run(capsys, "export", "--out", str(tmp_path / "pack.tar.xz"), "--format", "json")
    assert status == 0
    return str(tmp_path / "pack.tar.xz"), json.loads(out)["digest"]


def test_the_printed_command_imports_what_was_exported(
    pack: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "b"))
    status, out, _ = run(capsys, "import", pack[0], "--digest", pack[1])
    assert status == 0
    assert f"{len(FILES) + 2} files written" in out
    assert "triton" in out
    assert "this plan: miss" in out
    status, out, _ = run(capsys, "import", pack[0], "--digest", pack[1], "--format", "json")
    assert [one["written"] for one in json.loads(out)["families"]] == [0] * 5
    assert run(capsys, "verify")[:2] == (0, f"{tmp_path}/b: 9 imported files, all unchanged.\n")
    status, out, _ = run(capsys, "list", "--format", "json")
    assert [(one["key"], one["packs"], one["current"]) for one in json.loads(out)] == [
        ("/".join(KEY.values()), 1, True)
    ]


def test_what_is_refused_has_its_exit_status(
    pack: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "b"))
    assert run(capsys, "import", pack[0])[0] == 64
    assert run(capsys, "import", pack[0], "--digest", f"sha256:{'0' * 64}")[0] == 78
    status, _, err = run(capsys, "import", pack[0], "--unpinned", "--model", "acti")
    assert (status, "nothing was changed" in err) == (78, True)
    assert not (tmp_path / "b").exists()
    assert run(capsys, "export", "--out", str(tmp_path / "c"))[0] == 78
    assert run(capsys, "push", pack[0], "registry.example/kernels:v1")[0] == 64


def test_verify_fails_for_a_file_that_changed(
    pack: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "import", pack[0], "--unpinned")
    assert run(capsys, "verify", pack[0])[0] == 0
    (tmp_path / "a" / Path(*KEY.values()) / "triton/ABC/kernel.ptx").write_bytes(b"x")
    status, out, _ = run(capsys, "verify")
    assert status == 1
    assert "changed: 0.32.0-0a1b2c3d/h200/w4a16/triton/ABC/kernel.ptx" in out


def test_a_list_says_what_another_build_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache(tmp_path / "a")
    told = "not installed: compiled by a vLLM of other versions or patches"
    assert told not in run(capsys, "list")[1]
    (tmp_path / "a/0.32.0+cpu-aaaaaaaa/cpu/demo/vllm").mkdir(parents=True)
    lines = run(capsys, "list")[1].splitlines()
    assert [line.split()[-1] for line in lines[:3]] == ["installed", "no", "yes"]
    assert lines[-1].startswith(told)


def test_prune_asks_before_it_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "a/0.31.0-aaaaaaaa/h200/w4a16/triton"
    old.mkdir(parents=True)
    status, out, err = run(capsys, "prune")
    assert (status, "0.31.0-aaaaaaaa" in out, "--yes` removes these folders" in err, old.exists()) == (
        0,
        True,
        True,
        True,
    )
    assert out.startswith("can be removed")
    status, out, _ = run(capsys, "prune", "--yes")
    assert (status, out.split()[0]) == (0, "removed")
    assert not old.exists()
    assert run(capsys, "prune")[1] == "nothing to prune\n"


def test_an_age_is_a_number_of_days(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("nan", "-1", "0", "40000"):
        status, _, err = run(capsys, "prune", "--older-than", wrong)
        assert (status, "is not a number of days above 0 and up to 36500" in err) == (64, True)
