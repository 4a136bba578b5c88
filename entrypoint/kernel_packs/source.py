"""Bring a pack to this host, and check its digest before anything in it is read: a pack is code."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx

from .. import plain_file
from ..errors import ConfigError, HostError, UsageError
from ..secret import without_password
from . import registry

_CHUNK = 1 << 20
LARGEST = 16 << 30
"""Bytes of a pack that is downloaded."""
_WEB = ("https://", "http://")
_SCHEMES = (registry.SCHEME, *_WEB)
_TIMEOUT = 30.0  # seconds without a byte


def check_pin(where: str, digest: str, *, unpinned: bool) -> None:
    """Raise UsageError for what names no pack, a pack that nothing pins, or a digest that is none."""
    if not where or ("://" in where and not where.startswith(_SCHEMES)):
        raise UsageError(f"{where!r} is not a file, an https:// URL, or an oci:// reference.")
    if digest and not registry.DIGEST.fullmatch(digest):
        raise UsageError(f"--digest {digest!r} is not a digest; write sha256: and 64 hexadecimal digits.")
    if not (digest or unpinned or registry.is_pinned(where)):
        raise UsageError(
            f"{without_password(where)} is code that this host would run, and nothing pins it. Give the digest that"
            " `dsv4 kernels export` printed (--digest sha256:…), or --unpinned to trust it as it is."
        )


@contextlib.contextmanager
def opened(where: str, digest: str = "") -> Iterator[tuple[IO[bytes], str]]:
    """
    Yield the archive at a path, an http(s) URL or an oci:// reference, and a name for messages.

    With a digest, the bytes are those of the digest. Raise UserError where they are not, or cannot be had.
    """
    name = without_password(where)
    if where.startswith(registry.SCHEME):
        reference = registry.parse(where)
        with _copied(name, lambda file: registry.pull(reference, file)) as file:
            yield _checked(file, name, digest), name
    elif where.startswith(_WEB):
        with _copied(name, lambda file: _download(where, file)) as file:
            yield _checked(file, name, digest), name
    else:
        try:
            local = plain_file.open_regular(Path(where))
        except OSError as error:
            raise ConfigError(f"{where} cannot be read ({error.strerror}).") from None
        with local:
            if not digest:
                yield local, name
                return
            # What was checked is what is read, whoever writes meanwhile.
            with _copied(name, lambda file: shutil.copyfileobj(local, file, _CHUNK)) as file:
                yield _checked(file, name, digest), name


def _copied(name: str, copy_to: Callable[[IO[bytes]], None]) -> IO[bytes]:
    """Return a temporary file that `copy_to` filled; raise HostError where it cannot be written."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            copy_to(file)
        except OSError as error:
            raise HostError(f"{name} cannot be copied to the folder of TMPDIR ({error.strerror}).") from None
        stack.pop_all()
        return file


def _checked(file: IO[bytes], name: str, digest: str) -> IO[bytes]:
    file.seek(0)
    if digest:
        found = registry.sha256(file)
        if found != digest:
            raise ConfigError(f"{name} does not have this digest, but {found}. Nothing was read from it.")
        file.seek(0)
    return file


def _download(url: str, file: IO[bytes]) -> None:
    name = without_password(url)
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT) as response:
            if response.status_code != httpx.codes.OK:
                raise HostError(f"{name} answered with status {response.status_code}.")
            copy(response, file, LARGEST, name)
    except httpx.HTTPError as error:
        raise HostError(f"{name} cannot be fetched ({error or type(error).__name__}).") from None
    except httpx.InvalidURL as error:
        raise ConfigError(f"{name} is not a valid URL ({error}).") from None


def copy(response: httpx.Response, file: IO[bytes], most: int, name: str) -> None:
    """Write the body of a response to a file; raise HostError when it is longer than `most` bytes."""
    size = 0
    for part in response.iter_bytes(_CHUNK):
        size += len(part)
        if size > most:
            raise HostError(f"{name} is larger than the {most:,} bytes that it may have.")
        file.write(part)
