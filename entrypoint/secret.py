"""Which flags, variables and keys hold a secret, by the words of their names; and how a value is masked."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

MASK = "***"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_LAST = frozenset(
    {"key", "keys", "token", "secret", "secrets", "password", "passwords", "passwd", "pass", "passphrase", "credential"}
    | {"credentials", "cookie", "cookies", "auth", "authorization", "pat", "apikey", "apikeys", "accesskey"}
    | {"secretkey", "privatekey", "pw", "pwd", "jwt", "bearer", "sas", "sig", "signature"}
)
"""A name that ends with one of these holds a secret; numbers after it do not count."""
_HELD = frozenset(["password", "passwd", "passphrase", "credential", "apikey"])
"""A name with one of these anywhere holds a secret, unless it ends with one of `_NOT`."""
_NOT = frozenset(["file", "files", "path", "dir", "folder", "type", "mode", "name", "url"])
_SWITCHES = frozenset(["allow", "allowed", "disable", "enable", "max", "min", "num", "skip", "use"])
_PAIRS = (("access", "key"), ("api", "key"), ("secret", "key"), ("private", "key"))
IN_URL = re.compile(r"(://[^/\s:@]*:|://(?=[^@\s/?#:]+@))[^@\s/]+(?=@)")
"""The password in a URL, or a user without one, who may be a token."""
_QUERY = re.compile(r"[?&;]([A-Za-z][\w.-]*)=([^&;\s\"']+)")
_BEARER = re.compile(r"(?i)\bbearer\s+([^\s\"',}]{4,})")
_ASSIGNED = re.compile(r"([A-Za-z][\w.-]*)=(\S+)")
"""All of a text: a name and its value."""
_SHAPED = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bgh[a-z]_[A-Za-z0-9]{30,}|\bglpat-[\w-]{20,}|\bsk-[\w-]{32,}|\bAKIA[0-9A-Z]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END|\Z)",
    re.DOTALL,
)
"""What its shape alone says to be a secret, whatever it is called: tokens of known services, a private key."""
_NAMED = re.compile(r"([\w.-]+)[\"']?(?:\s*[=:]\s*|\s+)[\"']?([^\s\"',}]+)")
_SHORTEST = 6
"""Characters: a shorter secret is masked only between quotes."""


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
    """Return a value for people: a secret, one inside of a table or a JSON text, and a password in a URL are masked."""
    return _masked(value, secret=is_secret(name))


def _masked(value: Any, *, secret: bool) -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, secret=secret or is_secret(str(key))) for key, inner in value.items()}
    if isinstance(value, bool) or value is None or value == "":
        return value
    if secret:
        return MASK
    if isinstance(value, list):
        return [_masked(inner, secret=False) for inner in value]
    return _masked_text(value) if isinstance(value, str) else value


def _masked_text(text: str) -> str:
    if (value := _json(text)) is None:
        return _without(text, _spans(text))
    shown = _masked(value, secret=False)
    return text if shown == value else json.dumps(shown)


def secrets_in(name: str, value: Any) -> set[str]:
    """Return every secret within a value, as a text; what `masked` hides."""
    return set(_secrets(value, secret=is_secret(name)))


def _secrets(value: Any, *, secret: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets(inner, secret=secret or is_secret(str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, secret=secret)
    elif isinstance(value, bool) or value is None or value == "":
        return
    elif secret:
        yield str(value)
    elif isinstance(value, str) and (inner := _json(value)) is not None:
        yield from _secrets(inner, secret=False)
    elif isinstance(value, str):
        yield from (value[start:end] for start, end in _spans(value))


def forms(secret: str) -> set[str]:
    """
    Return how a program may print a secret: as it is, and within the quotes of JSON and Python.

    A short one counts only within quotes, as it may be a part of ordinary words.
    """
    written = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    if len(secret) >= _SHORTEST:
        return written | {line for line in secret.splitlines() if len(line) >= _SHORTEST}
    return {f"{quote}{text}{quote}" for text in written for quote in ("'", '"')}


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which none of these secrets is left."""
    for form in sorted((form for secret in secrets for form in forms(secret)), key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def without_secrets(text: str) -> str:
    """Return a text that nothing could read, such as broken JSON, without what its names call a secret."""
    return _without(text, _named(text))


def named_in(text: str) -> set[str]:
    """Return what the names in a text that nothing could read call a secret."""
    return {text[start:end] for start, end in _named(text)}


def _named(text: str) -> list[tuple[int, int]]:
    named = [match.span(2) for match in _NAMED.finditer(text) if is_secret(match[1])]
    return sorted([*named, *_spans(text)])


def without_password(text: str) -> str:
    """Return a text whose URLs have no password."""
    return IN_URL.sub(rf"\g<1>{MASK}", text) if "://" in text else text


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where a text holds a secret: in a URL, its query, a connection string, after `Bearer`, or by its shape."""
    found = [(match.end(1), match.end()) for match in IN_URL.finditer(text)] if "://" in text else []
    found += [match.span(2) for match in _QUERY.finditer(text) if is_secret(match[1])]
    found += [match.span() for match in _SHAPED.finditer(text)]
    if (match := _ASSIGNED.fullmatch(text)) and is_secret(match[1]):
        found.append(match.span(2))
    return sorted([*found, *(match.span(1) for match in _BEARER.finditer(text))])


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    kept, at = [], 0
    for start, end in spans:
        if start >= at:
            kept += [text[at:start], MASK]
            at = end
    return "".join([*kept, text[at:]])


def _json(text: str) -> Any:
    """Return the table or list that a text is as JSON; None for any other text."""
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return None
