"""The endpoint of a running replica: vLLM's OpenAI server, the health server, and the key of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from .. import api_key
from ..errors import UsageError
from ..listen import API_PORT, health_address
from ..replica_description import ReplicaDescription
from ..secret import without_password
from ..vllm_schema import schema
from . import http
from .errors import Unreachable

MODELS = "/v1/models"
NOT_VLLM = "the answer is not from vLLM"
"""The error for a body that vLLM would not have sent."""


class ServedModel(BaseModel):
    """One served name as /v1/models lists it: its context in tokens, its weights and its engine, None where absent."""

    id: str
    max_model_len: int | None = None
    root: str | None = None
    owned_by: str | None = None


class ServedModels(BaseModel):
    """The answer at /v1/models: at least one name, the model's own first."""

    data: list[ServedModel] = Field(min_length=1)


class ServedPlan(ReplicaDescription):
    """The answer at `/plan`: the replica's description, with its command and its settings."""

    argv: list[str]  # pyright: ignore[reportGeneralTypeIssues] - required here, which pydantic allows

    def values(self) -> dict[str, Any]:
        """Return the settings' values by name."""
        return {name: setting.value for name, setting in self.settings.items()}


@dataclass(frozen=True)
class Endpoint:
    """
    One replica, or a balancer before several; URLs are without a trailing slash.

    `health` is None where there is no health server; what needs it is then skipped and reported.
    """

    url: str
    health: str | None = None
    key: str | None = field(default=None, repr=False)
    options: tuple[str, str] = ("--url", http.KEY_OPTION)
    """The options that name its address and the file of its key, for messages."""

    def models(self) -> list[ServedModel]:
        """Return what is served, the model's own name first; raise RequestFailed."""
        answer = http.get_accepted(f"{self.url}{MODELS}", self.key, self.options[1])
        return http.parsed(ServedModels, answer, NOT_VLLM, f"; name its server with {self.options[0]}.").data

    def plan(self) -> ServedPlan:
        """Return the plan that the health server has at `/plan`; raise RequestFailed."""
        if self.health is None:
            raise Unreachable("No health server is named (--health), so the plan of this replica is unknown.")
        answer = http.get_accepted(f"{self.health}/plan", self.key)
        return http.parsed(
            ServedPlan, answer, "the answer is not a plan", "; name the health server of dsv4 with --health."
        )


def resolve(url: str | None, health: str | None, key_file: str | None, environ: Mapping[str, str]) -> Endpoint:
    """
    Return the endpoint that --url, --health and --api-key-file name, or else the environment.

    Raise UsageError for an invalid address, ConfigError for an invalid port or key.
    """
    url = checked_url("--url", url) if url else f"http://localhost:{_port(environ, 'PORT', API_PORT)}"
    return Endpoint(url, _health(health, url, environ), key_of(key_file, environ))


def _health(named: str | None, url: str, environ: Mapping[str, str]) -> str | None:
    if named == "none":
        return None
    if named:
        return checked_url("--health", named)
    host = urlsplit(url).hostname or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{health_address(environ)[1]}"


def _port(environ: Mapping[str, str], variable: str, default: int) -> int:
    return int(schema.check_value("port", environ.get(variable) or default, f"environment {variable}"))


def checked_url(option: str, text: str) -> str:
    """Return `scheme://host[:port]`, without the `/v1` that people often copy with it."""
    bare = text.rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(bare)
        (parts.hostname or "").encode("idna")  # as a look-up does, which ends otherwise with a UnicodeError
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in bare
    except ValueError:
        named = False
    if not named or not bare.isprintable():
        raise UsageError(f"{option} {without_password(repr(text))} is not an address; write it as http://HOST:PORT.")
    return bare


def key_of(file: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the key of --api-key-file, of API_KEY_FILE, or VLLM_API_KEY; None for none; raise ConfigError."""
    named = file or environ.get("API_KEY_FILE")
    if not named:
        key = environ.get("VLLM_API_KEY")
        return api_key.checked(key, "environment VLLM_API_KEY") if key else None
    return api_key.key_in(named, f"{'--api-key-file' if file else 'environment API_KEY_FILE ='} {named}")
