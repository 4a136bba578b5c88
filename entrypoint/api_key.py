"""Read the keys of a key file for commands, and check a key."""

from __future__ import annotations

from pathlib import Path

from . import key_file, plain_file
from .errors import ConfigError
from .key_file import LONGEST, KeyLine


def lines_in(path: str, origin: str) -> list[KeyLine]:
    """Return the lines of a key file; raise ConfigError, beginning with `origin`."""
    try:
        return key_file.parse(plain_file.read(Path(path)))
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
