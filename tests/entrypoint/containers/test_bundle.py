"""A bundle, written by the engine of this host and checked by sha256sum as on the other one."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile

import pytest

from dsv4_serve.entrypoint.containers import bundle as bundles
from dsv4_serve.entrypoint.containers.daemon import Daemon
from dsv4_serve.entrypoint.errors import ConfigError, HostError

pytestmark = pytest.mark.skipif(not bundles.COMPOSE.exists(), reason=f"{bundles.COMPOSE} is not there")
TINY, OTHER = "dsv4-tiny:test", "dsv4-other:test"


@pytest.fixture
def image(daemon: Daemon):
    """Two images of one file each; yields the name of the first."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = 100_000
        archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    for name in (TINY, OTHER):
        repository, tag = name.split(":")
        daemon.client.api.import_image_from_data(
            layer.getvalue(), repository=repository, tag=tag, changes=[f"LABEL name={name}"]
        )
    yield TINY
    for name in (TINY, OTHER):
        daemon.client.images.remove(name)


@pytest.fixture
def bundle(daemon, image, tmp_path):
    bundles.bundle(daemon, (image, OTHER), tmp_path / "bundle", print)
    return tmp_path / "bundle"


def check(folder) -> subprocess.CompletedProcess[str]:
    """Do what the second line of the README says."""
    return subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], check=False, cwd=folder, capture_output=True, text=True
    )


def test_it_has_all_that_the_other_host_needs_and_the_check_passes(bundle):
    held = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    required = {
        "README",
        ".env",
        "images/dsv4-other-test.tar",
        "SHA256SUMS",
        "docker-compose.yml",
        "images/dsv4-tiny-test.tar",
        "deploy/haproxy/fleet.html",
        "deploy/haproxy/haproxy.cfg",
        "deploy/haproxy/keys.lua",
        "profiles/524k.toml",
    }
    assert required <= held
    assert check(bundle).returncode == 0


def test_every_file_but_the_sums_has_one(bundle):
    held = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    summed = {line.split("  ", 1)[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()}
    assert summed == held - {"SHA256SUMS"}


def test_the_archive_is_loaded_again_with_its_name(bundle, daemon, image):
    daemon.client.images.remove(image)
    with (bundle / "images/dsv4-tiny-test.tar").open("rb") as archive:
        daemon.client.images.load(archive)
    assert daemon.image(image)


def test_two_bundles_differ_in_their_archives_at_most(bundle, daemon, image, tmp_path):
    bundles.bundle(daemon, (image, OTHER), tmp_path / "again", print)
    sums = [(folder / "SHA256SUMS").read_text().splitlines() for folder in (bundle, tmp_path / "again")]
    assert [line for line in sums[0] if "images/" not in line] == [line for line in sums[1] if "images/" not in line]


def test_a_truncated_archive_is_found_by_the_check(bundle):
    archive = bundle / "images/dsv4-tiny-test.tar"
    os.truncate(archive, archive.stat().st_size - 4096)
    done = check(bundle)
    assert done.returncode == 1
    assert "images/dsv4-tiny-test.tar: FAILED" in done.stdout


@pytest.mark.parametrize("cut", [512, 4096, 60_000])
def test_an_archive_that_did_not_arrive_whole_never_becomes_a_bundle(bundle, cut):
    archive = bundle / "images/dsv4-tiny-test.tar"
    os.truncate(archive, archive.stat().st_size - cut)
    with pytest.raises(HostError, match="is not a complete image archive"):
        bundles.check_archive(archive)


def test_an_archive_without_a_layer_that_its_manifest_names_is_refused(tmp_path):
    manifest = json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        for name, content in (("manifest.json", manifest), ("config.json", b"{}")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(HostError, match="layer.tar is missing"):
        bundles.check_archive(tmp_path / "image.tar")


def test_nothing_is_written_over(bundle, daemon, image):
    with pytest.raises(ConfigError, match="a bundle is never overwritten"):
        bundles.bundle(daemon, (image, OTHER), bundle, print)


def test_an_image_that_is_not_here_leaves_nothing_behind(daemon, tmp_path):
    with pytest.raises(HostError, match="Image no-such:image is not on this host"):
        bundles.bundle(daemon, ("no-such:image", OTHER), tmp_path / "bundle", print)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_refused_with_the_numbers(daemon, image, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=bundles.SPARE)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(HostError, match=r"takes up to \d\.\d GiB, but only 0\.1 GiB are free"):
        bundles.bundle(daemon, (image, OTHER), tmp_path / "bundle", print)
    assert not list(tmp_path.iterdir())


def test_the_readme_has_four_lines():
    assert len(bundles.README.splitlines()) == 4


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("dsv4-serve", "dsv4-serve"),
        ("docker.io/library/haproxy:3.0@sha256:0f", "haproxy-3.0"),
        ("host:5000/a/b:c", "b-c"),
    ],
)
def test_archives_are_named_after_their_images(image, name):
    assert bundles.file_name(image) == f"{name}.tar"
