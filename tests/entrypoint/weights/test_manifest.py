"""A folder held against the list of a revision, without a network."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.weights import manifest
from dsv4_serve.entrypoint.weights.manifest import Entry, Manifest, TransferProgress


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "config.json").write_bytes(b"{}")
    manifest.write(
        Manifest(
            "owner/model",
            "abc",
            (
                Entry("model.safetensors", 7000, "sha256", hashlib.sha256(b"weights" * 1000).hexdigest()),
                Entry("config.json", 2, "git-sha1", "9e26dfeeb6e641a33dae4961196235bdb965b21b"),  # `git hash-object`
            ),
        ),
        tmp_path,
    )
    return tmp_path


def verify(folder: Path) -> manifest.Verified:
    kept = manifest.read(folder)
    assert kept
    return manifest.verify(folder, kept)


def test_a_folder_that_is_whole_is_verified(folder: Path) -> None:
    seen = verify(folder)
    assert (seen.whole, seen.checked, seen.size) == (True, 2, 7002)
    assert json.loads(json.dumps(seen.to_json()))["whole"] is True


def test_a_git_id_is_what_git_says(folder: Path) -> None:
    said = subprocess.run(["git", "hash-object", folder / "config.json"], capture_output=True, text=True, check=True)
    kept = manifest.read(folder)
    assert kept
    assert said.stdout.strip() == kept.files[1].digest


def test_one_flipped_bit_is_found(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[3500] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert (verify(folder).wrong, verify(folder).whole) == (("model.safetensors",), False)


def test_what_is_short_missing_or_foreign_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").unlink()
    (folder / "other.safetensors").touch()
    seen = verify(folder)
    assert (seen.wrong, seen.missing, seen.foreign) == (
        ("model.safetensors",),
        ("config.json",),
        ("other.safetensors",),
    )
    kept = manifest.read(folder)
    assert kept
    assert [entry.path for entry in kept.absent(folder)] == ["model.safetensors", "config.json"]


def test_a_folder_without_a_list_has_none(tmp_path: Path) -> None:
    assert manifest.read(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"repository": "a/b", "revision": "c", "files": [{"path": "x"}]}',
        '{"repository": "a/b", "revision": "c", "files": [{"path": "../x", "size": 1, "algorithm": "sha256", "digest": ""}]}',
        '{"repository": "a/b", "revision": "c", "files": [{"path": "x", "size": 1, "algorithm": "sha256", "digest": ""}]}',
        '{"repository": "a/b", "revision": "c", "files": [{"path": "/etc/x", "size": 1, "algorithm": "sha256", "digest": ""}]}',
        '{"repository": "a/b", "revision": "c", "files": [{"path": "x", "size": 1, "algorithm": "md5", "digest": ""}]}',
    ],
)
def test_an_unusable_manifest_is_reported_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / manifest.NAME).write_text(text)
    with pytest.raises(ConfigError, match=manifest.NAME):
        manifest.read(tmp_path)


def test_progress_gives_bytes_rate_and_rest(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dsv4_serve")
    progress = TransferProgress("verified", 4_000_000_000, every=0.0)
    progress.add(1_000_000_000)
    assert caplog.messages[0].startswith("verified 1.00 of 4.00 GB, ")
    assert caplog.messages[0].endswith(" min left")
