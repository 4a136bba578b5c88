"""Which flags, variables and keys hold a secret, by the words of their names; and how a value is masked."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Any

MASK = "***"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_LAST = frozenset(
    {"key", "keys", "token", "secret", "secrets", "password", "passwords", "passwd", "pass", "passphrase", "credential"}
    | {"credentials", "cookie", "cookies", "auth", "authorization", "pat", "apikey", "apikeys", "accesskey"}
    | {"secretkey", "privatekey"}
)
"""A name that ends with one of these holds a secret; numbers after it do not count."""
_HELD = frozenset(["password", "passwd", "passphrase", "credential", "apikey"])
"""A name with one of these anywhere holds a secret, unless it ends with one of `_NOT`."""
_NOT = frozenset(["file", "files", "path", "dir", "folder", "type", "mode", "name", "url"])
_SWITCHES = frozenset(["allow", "allowed", "disable", "enable", "max", "min", "num", "skip", "use"])
_PAIRS = (("access", "key"), ("api", "key"), ("secret", "key"), ("private", "key"))
IN_URL = re.compile(r"(://[^/\s:@]*:|://(?=[^@\s/?#:]+@))[^@\s/]+(?=@)")
"""The password in a URL, or a user without one, who may be a token."""


@cache
def is_secret(name: str) -> bool:
    """Tell whether a flag, a variable, or a key of a JSON flag is named like one that holds a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    if not words or words[-1] in _NOT:
        return False
    if words[0] in _SWITCHES:
        return False
    if words[-1] == "headers" and "otlp" in words:  # OTEL_EXPORTER_OTLP_HEADERS holds `authorization=…`
        return True
    pairs = set(itertools.pairwise(words))
    return words[-1] in _LAST or bool(_HELD & set(words)) or any(pair in pairs for pair in _PAIRS)


def masked(name: str, value: Any) -> Any:
    """Return a value for people: a secret, one inside of a table, and a password in a URL are masked."""
    if isinstance(value, dict):
        return {key: masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, bool) or value is None or value == "":
        return value
    if is_secret(name):
        return MASK
    if isinstance(value, list):
        return [masked("", inner) for inner in value]
    return without_password(value) if isinstance(value, str) else value


def without_password(text: str) -> str:
    """Return a text whose URLs have no password."""
    return IN_URL.sub(rf"\g<1>{MASK}", text) if "://" in text else text
