"""Write a bundle: a folder with all that a host without a network needs, with checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, HostError
from .daemon import Daemon, Log, engine_errors
from .deployment import SHIPPED

COMPOSE = SHIPPED / "deploy/docker-compose.yml"
PLAIN = ("deploy/haproxy", "deploy/prometheus", "deploy/grafana", "profiles")
"""Folders that the compose file mounts, and the profiles."""
CHECKSUMS = "SHA256SUMS"
SPARE = 64 * 2**20
"""Bytes that have to stay free on the disk."""
README = """\
check: sha256sum --check --quiet SHA256SUMS
load:  for archive in images/*.tar; do docker load --input "$archive"; done
run:   mkdir -m 700 secrets && openssl rand -hex 32 >secrets/api-key && chmod 644 secrets/api-key && MODELS=/FOLDER MODEL=NAME=/models/FOLDER docker compose up --detach --wait
ask:   curl -H "Authorization: Bearer $(cat secrets/api-key)" http://localhost:8000/v1/models
"""  # noqa: E501  a line each
ENV = """\
COMPOSE_PROFILES=tp2
DSV4_IMAGE={image}
BALANCER_IMAGE={balancer}
"""


OVERRIDE = """\
# Compose reads this file beside docker-compose.yml: each replica imports the packs in kernels/ before vLLM starts.
services:
  replica-0: &kernels
    environment: {DSV4_KERNELS: /kernels}
    volumes: ["./kernels:/kernels:ro"]
  replica-1: *kernels
  replica-tp4: *kernels
"""


def bundle(daemon: Daemon, images: tuple[str, str], out: Path, log: Log, kernels: Sequence[Path] = ()) -> None:
    """
    Write images/*.tar, compose, HAProxy's configuration, profiles, a README of four lines and SHA256SUMS into `out`.

    `images` are that of the replicas and that of the balancer. Kernel packs get a folder, and a file for Compose that
    mounts it.

    It is written under another name and renamed. Raise ConfigError when `out` exists, HostError when an image is
    missing, the disk is too small, or an archive is incomplete.
    """
    if out.exists():
        raise ConfigError(f"{out} exists, and a bundle is never overwritten; remove it, or give another --out.")
    partial = out.parent / f".{out.name}.partial"
    if partial.exists():
        raise ConfigError(f"{partial} remains from an interrupted bundle; remove it first.")
    _check_space(daemon, images, out.parent)
    try:
        (partial / "images").mkdir(parents=True)
        for name in images:
            _save(daemon, name, partial / "images", log)
        _copy_files(partial)
        _copy_kernels(partial, kernels)
        (partial / ".env").write_text(ENV.format(image=tag(images[0]), balancer=tag(images[1])))
        (partial / CHECKSUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in _digests(partial)))
        partial.rename(out)
    except OSError as error:
        raise HostError(f"cannot write {out} ({error.strerror}).") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log(f"{out} is written; its README has the four commands for the other host")


def tag(image: str) -> str:
    """Return an image's name without its digest, which no archive keeps."""
    return image.partition("@")[0]


def file_name(image: str) -> str:
    """Return the archive's name for an image: `docker.io/library/haproxy:3.0@sha256:…` → `haproxy-3.0.tar`."""
    return tag(image).rsplit("/", 1)[-1].replace(":", "-") + ".tar"


def check_archive(path: Path) -> None:
    """Raise HostError unless an archive is complete: it has all that its manifest names, and its end."""
    try:
        with tarfile.open(path) as archive:
            names = set(archive.getnames())
            manifest = archive.extractfile("manifest.json")
            entries = json.load(manifest) if manifest else []
            expected = {name for entry in entries for name in (entry["Config"], *entry["Layers"])}
        with path.open("rb") as file:
            file.seek(-1024, 2)
            ended = not any(file.read())  # two blocks of zeros
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise HostError(f"{path.name} is not a complete image archive ({error}).") from None
    if missing := sorted(expected - names):
        raise HostError(f"{path.name} is not a complete image archive ({missing[0]} is missing).")
    if not ended or not expected:
        raise HostError(f"{path.name} is not a complete image archive (it is cut off).")


def _check_space(daemon: Daemon, images: tuple[str, ...], folder: Path) -> None:
    needed = SPARE
    for image in images:
        if daemon.image(image) is None:
            raise HostError(f"Image {image} is not on this host; build or pull it, or name another.")
        needed += int(daemon.client.images.get(image).attrs["Size"])
    if not folder.is_dir():
        raise ConfigError(f"--out: the folder {folder} does not exist.")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"{folder}: the bundle takes up to {needed / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free; give"
            " another --out."
        )


def _save(daemon: Daemon, image: str, folder: Path, log: Log) -> None:
    path = folder / file_name(image)
    log(f"writing {tag(image)} to {path.name}")
    with engine_errors(f"Image {image} cannot be written"), path.open("wb") as file:
        if image != tag(image):
            daemon.client.images.get(image).tag(*tag(image).rsplit(":", 1))
        for part in daemon.client.api.get_image(tag(image)):
            file.write(part)
    check_archive(path)


def _copy_files(folder: Path) -> None:
    shutil.copyfile(COMPOSE, folder / "docker-compose.yml")
    for name in PLAIN:
        shutil.copytree(SHIPPED / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.py*"))
    (folder / "README").write_text(README)


def _copy_kernels(folder: Path, packs: Sequence[Path]) -> None:
    if packs:
        (folder / "kernels").mkdir()
        (folder / "docker-compose.override.yml").write_text(OVERRIDE)
    for pack in packs:
        shutil.copyfile(pack, folder / "kernels" / pack.name)


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            yield str(path.relative_to(folder)), hashlib.file_digest(file, "sha256").hexdigest()
