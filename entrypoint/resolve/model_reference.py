"""How a user spells where a model is: a folder, OWNER/NAME, or the address of a page on the Hub. Pure."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ConfigError
from ..weights import hub_files

_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)(?:/+|$)|hf:(?://)?", re.IGNORECASE)
_SITE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_USER = re.compile(r"(?<=//)[^/@]*@")
"""Name and password of an address; they belong into no message."""
_REVISION = re.compile(r"[@:]")
_PAGES = ("tree", "blob", "resolve", "raw", "commit")
"""Parts of the Hub's addresses that a revision follows."""


def is_store(text: str) -> bool:
    """Tell whether a text is an address in an object store, from which vLLM can stream weights."""
    return text.startswith(("s3://", "gs://", "az://"))


def is_path(text: str) -> bool:
    """Tell whether a text can only be meant as a path."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def place(text: str, origin: str, endpoint: str = "", revision: str = "main") -> str:
    """
    Return the folder or the repository that is meant, spelled as vLLM takes it.

    `endpoint` is HF_ENDPOINT, and `revision` what --revision says. Raise ConfigError for an address of another site,
    for one that names no repository, and for a revision that --revision does not name.
    """
    text = text.strip()
    if is_path(text):
        return str(Path(text).expanduser()) if text.startswith("~") else text
    if is_store(text):
        return text
    text = _USER.sub("", text)
    address = _in_hub(text, endpoint)
    if address is None and _SITE.match(text):
        raise ConfigError(
            f"{origin}: {text} is an address of another site; use OWNER/NAME on the Hub (HF_ENDPOINT names a mirror),"
            " or a folder."
        )
    bare, _, stated = _apart(text if address is None else re.split(r"[?#]", address)[0])
    parts = [part for part in bare.split("/") if part]
    if address is not None and (len(parts) < 2 or parts[0] in ("datasets", "spaces", "models")):
        raise ConfigError(f"{origin}: {text} names no model on the Hub; use OWNER/NAME.")
    if address is None and len(parts) != 2:
        return text
    if not stated and len(parts) > 3 and parts[2] in _PAGES:
        stated = parts[3]
    repository = "/".join(parts[:2])
    if not hub_files.is_repository(repository):
        return text
    if stated and stated != revision:
        raise ConfigError(f"{origin}: {text} names a revision; use --model {repository} --revision {stated}.")
    return repository


def _apart(text: str) -> tuple[str, str, str]:
    """Split OWNER/NAME from a revision behind `@` or `:`."""
    owner, slash, rest = text.partition("/")
    found = _REVISION.search(rest)
    return (f"{owner}/{rest[: found.start()]}", found[0], rest[found.end() :]) if slash and found else (text, "", "")


def _in_hub(text: str, endpoint: str) -> str | None:
    """Return what follows the Hub's own part of an address; None for another text."""
    own = endpoint.rstrip("/") + "/"
    if endpoint and text.startswith(own):
        return text.removeprefix(own)
    found = _HUB.match(text)
    return text[found.end() :] if found else None
