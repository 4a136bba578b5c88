"""The file that holds a bearer key."""

from __future__ import annotations

from pathlib import Path

from dsv4_serve.entrypoint.errors import ConfigError


def key_in(path: str, origin: str) -> str:
    """Return the one key that a file holds; raise ConfigError, which begins with `origin`, where it does not."""
    try:
        key = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{origin}: cannot be read ({error.strerror}); mount a readable file there.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{origin}: holds bytes that are not UTF-8; it has to hold one key on one line.") from None
    if len(key.split()) != 1 or not key.isascii():
        raise ConfigError(f"{origin}: has to hold one key on one line, without spaces.")
    return key
