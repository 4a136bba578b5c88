"""
Import packs before a start, so that the first start on a new host finds its kernels.

They come from the image (IMAGE), and from what DSV4_KERNELS names. The image and the operator vouch for them. A pack
that does not fit or cannot be had never ends a start: kernels compile then, as without packs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, HostError, UserError

IMAGE = Path("/usr/share/dsv4/kernels")
"""The folder of packs that an image was built with."""
PATTERN = "*.tar.xz"
log = logging.getLogger(__name__)


def sources(named: str, image: Path = IMAGE) -> list[str]:
    """Return what DSV4_KERNELS names, after the image's folder; raise ConfigError for a reference without a digest."""
    found = [part.strip() for part in named.split(",") if part.strip()]
    if found:
        from . import registry  # not needed by starts without packs: 1 MiB
    for one in found:
        if "://" in one and not registry.is_pinned(one):
            raise ConfigError(
                f"environment DSV4_KERNELS: {one} is not pinned; name a folder, or oci://HOST/REPOSITORY@sha256:…."
            )
    return [*([str(image)] if image.is_dir() else []), *found]


def take(named: list[str], root: Path, folder: Path) -> None:
    """Import every pack into the cache folder of a plan, below `root`; log what came of it."""
    for where in named:
        try:
            for pack in _packs(where):
                _take(pack, root, folder)
        except (UserError, OSError) as error:
            log.info(f"note: kernel pack: {error}")


def _packs(where: str) -> Iterator[str]:
    if "://" in where:
        yield where
        return
    folder = Path(where)
    if not folder.is_dir():
        raise HostError(f"{where} is not a folder of packs.")
    yield from (str(path) for path in sorted(folder.glob(PATTERN)))


def _take(where: str, root: Path, folder: Path) -> None:
    from . import place, registry, source

    digest = where.rpartition("@sha256:")[2] if registry.is_pinned(where) else ""
    done = folder / place.RECORDS / f"{digest[:16]}.pulled" if digest else None
    if done and done.exists():
        return
    try:
        with source.opened(where) as (file, name):
            placed = place.place(file, name, root, folder)
    except ConfigError as error:  # of another key, or malformed: the next one may fit
        log.info(f"note: kernel pack: {error}")
        return
    if not placed.before:
        log.info(f"kernel pack: {len(placed.written)} files from {name}, {len(placed.kept)} were there already")
    if done and os.access(done.parent, os.W_OK):
        done.touch()
