"""Read the keys of a key file for commands, and check a key."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from . import key_file, plain_file
from .errors import ConfigError
from .key_file import LONGEST, KeyFile, KeyLine


def lines_in(path: str, origin: str) -> list[KeyLine]:
    """Return the lines of a key file; raise ConfigError, beginning with `origin`."""
    with _config_errors(origin):
        return key_file.parse(plain_file.read(Path(path)))


def followed(path: str, origin: str, tell: Callable[[str], None]) -> KeyFile:
    """Return a key file whose changes are followed; raise ConfigError, beginning with `origin`."""
    with _config_errors(origin):
        return KeyFile(Path(path), tell)


@contextlib.contextmanager
def _config_errors(origin: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{origin}: cannot read the file ({error.strerror}); mount a readable file there.") from None
    except key_file.KeyFileError as error:
        raise ConfigError(f"{origin}: {error}. docs/how-to/keys.md has the format.") from None


def key_in(path: str, origin: str) -> str:
    """Return the first key in a file, which our own commands use; raise ConfigError, beginning with `origin`."""
    return lines_in(path, origin)[0].key


def checked(key: str, origin: str) -> str:
    """Return the key; raise ConfigError, beginning with `origin`, if an HTTP header cannot carry it."""
    if len(key.split()) != 1 or len(key) > LONGEST or not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{origin}: the key is not valid; it must be one line of ASCII characters without spaces.")
    return key
