"""The other engine of a comparison: any server of OpenAI's API, with what it says of itself."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from .. import api_key, plain_file
from ..client import endpoint, http
from ..client.endpoint import Endpoint
from ..client.errors import RequestFailed
from ..errors import UsageError, listed
from ..secret import without_password
from .measure import Subject

OPTIONS = ("--engine-url", "--engine-key-file")
_VERSIONS = ("/version", "/server_info", "/get_server_info")
"""Where vLLM, and SGLang by its age, tell their version."""


@dataclass(frozen=True)
class OtherEngine:
    """Where it is, the name that it serves the model under (its first one where None), and its hardware if stated."""

    endpoint: Endpoint
    model: str | None = None
    hardware: str | None = None


def at(url: str, key_file: str | None, model: str | None, hardware: str | None = None) -> OtherEngine:
    """Return the engine that --engine-url names; its key comes from --engine-key-file alone."""
    key = api_key.key_in(key_file, f"{OPTIONS[1]} {key_file}") if key_file else None
    return OtherEngine(Endpoint(endpoint.checked_url(OPTIONS[0], url), None, key, OPTIONS), model, hardware)


def subject(engine: OtherEngine) -> Subject:
    """Return it as a subject of a measurement; raise UsageError for a name that it does not serve."""
    models = engine.endpoint.models()
    names = [model.id for model in models]
    if engine.model is not None and engine.model not in names:
        url = without_password(engine.endpoint.url)
        raise UsageError(f"--engine-model {engine.model}: {url} serves {listed(names)}.")
    served = next(model for model in models if engine.model in (None, model.id))
    kind = served.owned_by or "engine"
    found = version(engine.endpoint)
    about = {
        "subject": f"{kind}-{served.id}",
        "weights": "unknown",
        "hardware": f"{engine.hardware} (by --engine-hardware)" if engine.hardware else "not stated",
        "digests": {},
        "replica": {"versions": {kind: found}} if found else {},
        "start": {},
    }
    return Subject(engine.endpoint, served.id, served.max_model_len, about)


def version(engine: Endpoint) -> str:
    """Return the version that an engine tells, empty where it tells none."""
    for path in _VERSIONS:
        with contextlib.suppress(RequestFailed, ValueError, LookupError, TypeError):
            return str(plain_file.parse_json(http.get_accepted(f"{engine.url}{path}", engine.key).content)["version"])
    return ""
