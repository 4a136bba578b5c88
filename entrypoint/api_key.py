"""Read a bearer key from a file, and check it."""

from __future__ import annotations

from pathlib import Path

from . import plain_file
from .errors import ConfigError

LONGEST = 4096
"""Characters; balancers and servers refuse longer headers."""


def key_in(path: str, origin: str) -> str:
    """Return the key in a file; raise ConfigError, beginning with `origin`, unless it contains exactly one."""
    try:
        key = plain_file.read(Path(path)).decode("utf-8-sig").strip()
    except OSError as error:
        raise ConfigError(f"{origin}: cannot read the file ({error.strerror}); mount a readable file there.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{origin}: the file is not UTF-8 text; it must contain one key on one line.") from None
    if key.startswith("#"):
        raise ConfigError(f"{origin}: the key begins with #, which is a comment to the balancer; use another key.")
    if len(key.splitlines()) > 1:
        raise ConfigError(f"{origin}: the file has {len(key.splitlines())} lines; it must contain one key on one line.")
    return checked(key, origin)


def checked(key: str, origin: str) -> str:
    """Return the key; raise ConfigError, beginning with `origin`, if an HTTP header cannot carry it."""
    if len(key.split()) != 1 or len(key) > LONGEST or not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{origin}: the key is not valid; it must be one line of ASCII characters without spaces.")
    return key
