"""Identify a checkpoint on the Hub: by the snapshot in the local cache, or by its config.json and index online."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import plain_file
from ..checkpoint import described, identify
from ..checkpoint.identity import Identity
from ..checkpoint.read import INDEX, INDEX_MIB
from ..errors import ConfigError
from ..secret import without_password
from . import hub_cache

SECONDS = 10
"""The most that a look at the Hub may take."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_repository(text: str) -> bool:
    """Tell whether a text has the form OWNER/NAME."""
    return bool(_REPOSITORY.fullmatch(text)) and len(text) <= 96


def cached_folder(repository: str, cache: Path, revision: str = "main") -> Path | None:
    """Return the snapshot of a repository in the Hub's cache if it has a config.json; without huggingface_hub."""
    place = hub_cache.repository_folder(cache, repository)
    try:
        commit = revision if _COMMIT.fullmatch(revision) else _text(place / "refs" / revision).strip()
        folder = place / "snapshots" / commit
        return folder if _COMMIT.fullmatch(commit) and (folder / "config.json").is_file() else None
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    return plain_file.read(path).decode("utf-8")


def online(repository: str, environ: Mapping[str, str], revision: str = "main") -> Identity | str:
    """Return what the Hub's config.json and index say, or in a few words why they could not be read in time."""
    if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    found: list[Identity | str] = []
    reader = threading.Thread(target=lambda: found.append(_read(repository, environ, revision)), daemon=True)
    reader.start()
    reader.join(SECONDS)
    return found[0] if found else f"the Hub did not answer within {SECONDS} s"


def _read(repository: str, environ: Mapping[str, str], revision: str) -> Identity | str:
    import httpx

    hub = environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    token = environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    deadline = time.monotonic() + SECONDS
    files = f"{hub}/{repository}/resolve/{revision}"
    hub = without_password(hub)
    try:
        with httpx.Client(follow_redirects=True, timeout=SECONDS, headers=headers) as client:
            config = _document(client, f"{files}/config.json", deadline)
            if isinstance(config, _Refusal):
                return _why(config, hub, revision)
            index = _document(client, f"{files}/{INDEX}", deadline)
        if config.lstrip()[:1] != b"{":
            return f"{hub} answered with something else than a config.json, as a proxy or a login page does"
        parsed = identify.config_object(config, repository)
        return identify.identify(described.from_index(parsed, index if isinstance(index, bytes) else b""))
    except httpx.HTTPError as error:
        return f"the Hub cannot be reached ({type(error).__name__})"
    except (ConfigError, TimeoutError) as error:
        return str(error).removeprefix(f"{repository}: ").rstrip(".")
    except (httpx.InvalidURL, ValueError, ImportError) as error:  # or a token that is not ASCII, an unknown proxy
        named = f"{hub} is not the address of a Hub" if isinstance(error, httpx.InvalidURL) else ""
        return named or f"the Hub cannot be asked ({type(error).__name__}): check HF_TOKEN and HTTPS_PROXY"


@dataclass(frozen=True)
class _Refusal:
    status: int
    code: str
    """The Hub's own name of the error (X-Error-Code); a proxy gives none."""


def _why(refusal: _Refusal, hub: str, revision: str) -> str:
    """Return why the Hub, or something before it, did not give a config.json."""
    if refusal.code == "GatedRepo":
        return "it is gated on the Hub: accept its terms there, and set HF_TOKEN"
    if refusal.code == "RevisionNotFound":
        return f"it has no revision {revision} on the Hub"
    if refusal.code or refusal.status in (401, 404):
        return "it has no config.json on the Hub, or is private"
    between = ", as a proxy or a firewall does" if refusal.status in (403, 407, 451) else ""
    return f"{hub} answered with status {refusal.status}{between}"


def _document(client: object, url: str, deadline: float) -> bytes | _Refusal:
    """Return a file of at most 256 MiB, or how the server refused it."""
    import httpx

    assert isinstance(client, httpx.Client)
    with client.stream("GET", url) as answer:
        if answer.status_code != 200:
            return _Refusal(answer.status_code, answer.headers.get("x-error-code", ""))
        data = bytearray()
        for part in answer.iter_bytes():
            data += part
            if time.monotonic() > deadline or len(data) > INDEX_MIB << 20:
                raise TimeoutError(f"the Hub did not answer within {SECONDS} s")
    return bytes(data)
