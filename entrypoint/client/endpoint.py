"""Where a running replica is asked: vLLM's OpenAI server, the health server beside it, and the key of both."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...healthcheck.listen import PORT
from .. import api_key
from ..errors import UsageError, UserError
from ..exit_status import ExitStatus
from ..vllm_schema import schema

if TYPE_CHECKING:
    import httpx

PATIENCE = 10.0
"""Seconds for an answer to a GET."""


class NoAnswer(UserError):
    """Nobody answers there, or something else than a replica does (EX_UNAVAILABLE)."""

    exit_status = ExitStatus.HOST


class Model(BaseModel):
    """One served name as /v1/models lists it: its context in tokens and its weights, None where they are not said."""

    id: str
    max_model_len: int | None = None
    root: str | None = None


class _Models(BaseModel):
    data: list[Model] = Field(min_length=1)


class _Open(BaseModel):
    """What is read of an object that may hold more."""

    model_config = ConfigDict(extra="allow")


class _Patch(BaseModel):
    name: str
    sha256: str
    state: str


class _Patches(_Open):
    patches: list[_Patch] = []


class _Gpu(_Open):
    name: str


class _Machine(_Open):
    gpus: list[_Gpu] = []


class Replica(BaseModel):
    """What a replica is, as `/plan` and receipts tell it; without patches and a machine where they are not known."""

    choices: dict[str, Any] = {}
    argv: list[str] = []
    env: dict[str, Any] = {}
    patches: _Patches = _Patches()
    versions: dict[str, Any] = {}
    machine: _Machine = _Machine()

    def to_json(self) -> dict[str, Any]:
        """Return `{"choices", "argv", "env", "patches", "versions", "machine"}`, as far as they were told."""
        return self.model_dump(include=set(Replica.model_fields), exclude_unset=True)


class _Setting(BaseModel):
    value: Any = None


class Plan(Replica):
    """What `/plan` answers: a replica that is started by `argv`, and its settings by name."""

    argv: list[str]
    settings: dict[str, _Setting] = {}


@dataclass(frozen=True)
class Endpoint:
    """
    One replica, or a balancer before several; URLs are without a trailing slash.

    `health` is None where there is none to be asked: what needs it is skipped by name then.
    """

    url: str
    health: str | None = None
    key: str | None = field(default=None, repr=False)

    def models(self) -> list[str]:
        """Return the served names, as `listing` does."""
        return [model.id for model in self.listing()]

    def listing(self) -> list[Model]:
        """Return what is served, one name at least, the model's own first; raise NoAnswer."""
        url = f"{self.url}/v1/models"
        try:
            return _Models.model_validate_json(get(url, self.key).content).data
        except ValidationError as error:
            raise NoAnswer(f"{url}: not an answer of vLLM's ({wrong(error)}); name its server with --url.") from None

    def plan(self) -> Plan:
        """Return what `/plan` of the health server answers; raise NoAnswer."""
        if self.health is None:
            raise NoAnswer("No health server is named (--health), so the plan of this replica is not known.")
        return plan(self.health, self.key)


def plan(health_url: str, key: str | None) -> Plan:
    """Return what `/plan` of a health server answers; raise NoAnswer."""
    url = f"{health_url}/plan"
    try:
        return Plan.model_validate_json(get(url, key).content)
    except ValidationError as error:
        raise NoAnswer(f"{url}: not a plan ({wrong(error)}); name the health server of dsv4 with --health.") from None


def wrong(error: ValidationError) -> str:
    """Return where the first thing that is wrong stands, and what it is."""
    first = error.errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"].lower())))


def get(url: str, key: str | None) -> httpx.Response:
    """Return the answer to a GET; raise NoAnswer for none, and for an error."""
    answer = ask(url, key)
    if answer.status_code == 401:
        raise NoAnswer(f"{url}: HTTP 401; name the file of the replica's key with --api-key-file (API_KEY_FILE).")
    if not answer.is_success:
        raise NoAnswer(f"{url}: HTTP {answer.status_code}.")
    return answer


def ask(url: str, key: str | None) -> httpx.Response:
    """Return the answer to a GET, asked without a proxy, whatever its status; raise NoAnswer for none."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx.get(url, headers=headers, timeout=PATIENCE, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"{url}: no answer ({str(error) or type(error).__name__}); is a replica there?") from None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --url, --health and --api-key-file."""
    parser.add_argument("--url", metavar="URL", help="vLLM's OpenAI server (http://localhost:PORT, 8000 without PORT)")
    parser.add_argument(
        "--health", metavar="URL", help="the replica's health server, or `none` (same host, DSV4_HEALTH_PORT or 8001)"
    )
    parser.add_argument("--api-key-file", metavar="FILE", help="a file that holds the bearer key (API_KEY_FILE)")


def from_options(options: argparse.Namespace, environ: Mapping[str, str]) -> Endpoint:
    """Return the endpoint that options and environment name; raise UsageError or ConfigError for what is none."""
    url = _url("--url", options.url) if options.url else f"http://localhost:{_port(environ, 'PORT', 8000)}"
    if options.health == "none":
        health = None
    elif options.health:
        health = _url("--health", options.health)
    else:
        host = urlsplit(url).hostname or "localhost"
        health = f"http://{f'[{host}]' if ':' in host else host}:{_port(environ, 'DSV4_HEALTH_PORT', PORT)}"
    return Endpoint(url, health, _key(options.api_key_file, environ))


def _port(environ: Mapping[str, str], variable: str, default: int) -> int:
    return int(schema.check_value("port", environ.get(variable) or default, f"environment {variable}"))


def _url(option: str, text: str) -> str:
    """Return `scheme://host[:port]`, as `/v1` behind it is what people copy along."""
    bare = text.rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(bare)
        named = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 80) > 0
    except ValueError:
        named = False
    if not named:
        raise UsageError(f"{option} {text!r} is no address; write it as http://HOST:PORT.")
    return bare


def _key(file: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the key of --api-key-file, of API_KEY_FILE, or VLLM_API_KEY; None where none is set."""
    named = file or environ.get("API_KEY_FILE")
    if not named:
        key = environ.get("VLLM_API_KEY")
        return api_key.checked(key, "environment VLLM_API_KEY") if key else None
    return api_key.key_in(named, f"{'--api-key-file' if file else 'environment API_KEY_FILE ='} {named}")
