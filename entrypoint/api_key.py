"""Read a bearer key from a file, and check it."""

from __future__ import annotations

from pathlib import Path

from .errors import ConfigError


def key_in(path: str, origin: str) -> str:
    """Return the key in a file; raise ConfigError, beginning with `origin`, unless it holds exactly one."""
    try:
        key = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{origin}: cannot be read ({error.strerror}); mount a readable file there.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{origin}: holds bytes that are not UTF-8; it has to hold one key on one line.") from None
    return checked(key, origin)


def checked(key: str, origin: str) -> str:
    """Return the key; raise ConfigError, beginning with `origin`, if an HTTP header cannot carry it."""
    if len(key.split()) != 1 or not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{origin}: has to hold one key on one line, of ASCII characters without spaces.")
    return key
