"""Where a running replica is asked: vLLM's OpenAI server, the health server beside it, and the key of both."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dsv4_serve.entrypoint.errors import UsageError, UserError
from dsv4_serve.entrypoint.keyfile import key_in

if TYPE_CHECKING:
    import httpx

    from dsv4_serve.healthcheck.counters import Counters

PATIENCE = 10.0
"""Seconds for an answer to a GET."""


class NoAnswer(UserError):
    """Nobody answers there, or something else than a replica does (EX_UNAVAILABLE)."""

    exit_status = 69


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
        """Return the served names, the model's own first; raise NoAnswer."""
        try:
            return [str(model["id"]) for model in get(f"{self.url}/v1/models", self.key).json()["data"]]
        except (ValueError, LookupError, TypeError):
            raise NoAnswer(f"{self.url}/v1/models: not an answer of vLLM's; name its server with --url.") from None

    def metrics(self) -> Counters:
        """Return one reading of vLLM's counters; raise NoAnswer, as behind a balancer that hides /metrics."""
        from dsv4_serve.healthcheck import counters

        text = get(f"{self.url}/metrics", self.key).text
        if "vllm:" not in text:
            raise NoAnswer(f"{self.url}/metrics: no counters of vLLM's there; name its server with --url.")
        try:
            return counters.read(text)
        except ValueError as error:
            raise NoAnswer(f"{self.url}/metrics: cannot be read ({error}).") from None

    def plan(self) -> dict[str, Any]:
        """Return what `/plan` of the health server answers; raise NoAnswer."""
        if self.health is None:
            raise NoAnswer("No health server is named (--health), so the plan of this replica is not known.")
        return plan(self.health, self.key)


def plan(health_url: str, key: str | None) -> dict[str, Any]:
    """Return what `/plan` of a health server answers; raise NoAnswer."""
    answer = get(f"{health_url}/plan", key)
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict) or "argv" not in found:
        raise NoAnswer(f"{health_url}/plan: not a plan; name the health server of dsv4 with --health.")
    return found


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
    url = _url("--url", options.url) if options.url else f"http://localhost:{environ.get('PORT') or 8000}"
    if options.health == "none":
        health = None
    elif options.health:
        health = _url("--health", options.health)
    else:
        host = urlsplit(url).hostname or "localhost"
        health = f"http://{f'[{host}]' if ':' in host else host}:{environ.get('DSV4_HEALTH_PORT') or 8001}"
    return Endpoint(url, health, _key(options.api_key_file, environ))


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
        return environ.get("VLLM_API_KEY") or None
    return key_in(named, f"{'--api-key-file' if file else 'environment API_KEY_FILE ='} {named}")
