"""
HTTP requests with httpx: no proxy, one bearer key, and errors as Unreachable and Refused.

`weights/` and `kernel_packs/` have clients of their own: the Hub and registries are reached through the environment's
proxy, redirect to other hosts, take other credentials, and send files that are streamed to disk.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from .. import plain_file
from ..validation import sentence
from .errors import OutOfFiles, Refused, Unreachable

if TYPE_CHECKING:
    import ssl

    import httpx

SECONDS = 10.0
"""For an answer to a GET, which vLLM's event loop sends between two requests."""
KEY_OPTION = "--api-key-file (API_KEY_FILE)"
"""The option that names the file of a key, as messages name it."""
_MOST = 16 << 20
"""Bytes of an answer; vLLM's metrics are about 100 KiB."""
Parsed = TypeVar("Parsed", bound=BaseModel)


def settings(key: str | None, url: str = "https:") -> dict[str, Any]:
    """Return the settings of every request to an address; a proxy is never used."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    verify = _trusted() if url.lower().startswith("https:") else _none_trusted()
    return {"headers": headers, "trust_env": False, "timeout": SECONDS, "verify": verify}


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Read the certificates that are trusted once: httpx would for every client, which takes 20 ms."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


@functools.cache
def _none_trusted() -> ssl.SSLContext:
    """Return a context for plain HTTP: the certificates would take 3 MiB."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextlib.contextmanager
def session(url: str, seconds: float, transport: httpx.BaseTransport | None = None) -> Iterator[httpx.Client]:
    """Yield a client for several requests to an address; raise Unreachable, with the cause alone, without an answer."""
    import httpx

    try:
        options: dict[str, Any] = settings(None, url) | {"timeout": seconds}
        with httpx.Client(base_url=url, transport=transport, **options) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(cause(error)) from None


def request(
    method: str, url: str, key: str | None, *, name: str = "", headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Send one request; where the URL has an address, `name` is the host that it stands for, also in a certificate."""
    import httpx

    given, extensions = dict(headers or {}), {}
    if name:
        parts = httpx.URL(url)
        given["Host"] = f"{name}:{parts.port}" if parts.port else name
        extensions["sni_hostname"] = name
    with httpx.Client(**settings(key, url)) as client:
        return whole(client, method, url, SECONDS, headers=given, extensions=extensions)


def whole(client: httpx.Client, method: str, url: str, seconds: float, **how: Any) -> httpx.Response:
    """Send one request and read its answer; raise httpx.HTTPError where that has no end within a time or a size."""
    import httpx

    until, parts, size = time.monotonic() + seconds, list[bytes](), 0
    with client.stream(method, url, **how) as answer:
        for part in answer.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > _MOST:
                raise httpx.ReadError(f"the answer has more than {_MOST >> 20} MiB")
            if time.monotonic() > until:
                raise httpx.ReadTimeout(f"the answer did not end within {seconds:g} s")
    kept = [(name, value) for name, value in answer.headers.items() if name.lower() == "content-type"]
    return httpx.Response(answer.status_code, headers=kept, content=b"".join(parts), request=answer.request)


def get(url: str, key: str | None, name: str = "") -> httpx.Response:
    """Return the answer to one GET, whatever its status; raise Unreachable without one."""
    import httpx

    try:
        return request("GET", url, key, name=name)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(f"{url}: no answer ({cause(error)}); is a replica running there?") from None


def get_accepted(url: str, key: str | None, key_option: str = KEY_OPTION, *, name: str = "") -> httpx.Response:
    """Return the answer to one GET; raise Unreachable without one, and Refused for an error."""
    answer = get(url, key, name)
    if answer.status_code == 401:
        raise Refused(f"{url}: HTTP 401 (unauthorized); pass the file of the replica's key with {key_option}.")
    if not answer.is_success:
        raise Refused(f"{url}: HTTP {answer.status_code}.", _reason(answer))
    return answer


def accepted(answer: httpx.Response, path: str) -> httpx.Response:
    """Return the answer; raise Refused if it is an error."""
    if not answer.is_success:
        raise Refused(f"{path}: HTTP {answer.status_code}", _reason(answer))
    return answer


def parsed(model: type[Parsed], answer: httpx.Response, otherwise: str, remedy: str = "") -> Parsed:
    """Return the body as a model; raise Unreachable with `otherwise` and the remedy if it does not fit."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        raise Unreachable(f"{answer.url}: {otherwise} ({sentence(error)}){remedy}") from None


def cause(error: Exception) -> str:
    """Return the message of an exception of httpx, or its name if it has none."""
    return str(error) or type(error).__name__


def unreachable(url: str, error: Exception) -> Unreachable:
    """Return the error for a request that httpx could not make: OutOfFiles where this process is to blame."""
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, OSError) and reason.errno in (errno.EMFILE, errno.ENFILE):
            return OutOfFiles(f"{url}: this process has no file descriptor left (ulimit -n)")
        reason = reason.__cause__ or reason.__context__
    return Unreachable(f"{url}: {cause(error)}")


def _reason(answer: httpx.Response) -> str:
    """Return the sentence of an error: vLLM gives `{"error": {"message": …}}`."""
    try:
        body = plain_file.parse_json(answer.content)
        return str(body.get("error", body)["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return "no reason given"
