"""
Usage by key holder: counters on vLLM's own /metrics, and one JSON line for each request but GETs.

Tokens are counted where vLLM's API server reads its engine: every answer passes there, streams and answers that nobody
waits for as well. The usage in answers is no substitute: a stream has none unless its client asks for it.
This runs in vLLM's process, which has prometheus_client; else the standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

LONGEST_PATH = 200


@dataclass
class KeyRequest:
    """One request of a holder: its tokens so far."""

    name: str
    method: str
    path: str
    began: float = field(default_factory=time.monotonic)
    status: int = 0
    whole: bool = False
    """The answer was sent to its end."""
    prompt: int = 0
    generated: int = 0


class KeyUsage:
    """Counts what holders use."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge

        self.requests = Counter("dsv4_key_requests", "Requests that were let in, by the name of their key.", ["name"])
        self.refused = Counter("dsv4_key_refused", "Requests over a limit of their key (429).", ["name", "limit"])
        self.prompt = Counter("dsv4_key_prompt_tokens", "Prompt tokens, by the name of their key.", ["name"])
        self.generated = Counter("dsv4_key_generated_tokens", "Generated tokens, by the name of their key.", ["name"])
        self.running = Gauge(
            "dsv4_key_requests_running",
            "Requests that run, by the name of their key.",
            ["name"],
            multiprocess_mode="livesum",
        )
        self._request: ContextVar[KeyRequest | None] = ContextVar("dsv4_key_request", default=None)
        self._client: Any = None

    def begin(self, name: str, scope: Mapping[str, Any]) -> KeyRequest:
        """Count a request that was let in; what it generates is its own from here on."""
        self._read_engine(scope)
        request = KeyRequest(name, scope.get("method", ""), str(scope["path"])[:LONGEST_PATH])
        self.requests.labels(name).inc()
        self.running.labels(name).inc()
        self._request.set(request)
        return request

    def end(self, request: KeyRequest) -> None:
        """Log a request that has ended."""
        self.running.labels(request.name).dec()
        if request.method == "GET":  # scrapes and lists
            return
        write_line(
            {
                "event": "request",
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "name": request.name,
                "path": request.path,
                "status": request.status,
                "whole": request.whole,
                "prompt_tokens": request.prompt,
                "generated_tokens": request.generated,
                "seconds": round(time.monotonic() - request.began, 3),
            }
        )

    def _read_engine(self, scope: Mapping[str, Any]) -> None:
        """Let `generate` of vLLM's engine client count; once, as the client outlives all requests."""
        client = getattr(getattr(scope.get("app"), "state", None), "engine_client", None)
        if client is not None and client is not self._client and hasattr(client, "generate"):
            self._client = client
            client.generate = self._counting(client.generate)

    def _counting(self, generate: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        def counted(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            outputs, request = generate(*args, **kwargs), self._request.get()
            if request is None:
                return outputs
            prompt = args[0] if args else kwargs.get("prompt")
            sampling = args[1] if len(args) > 1 else kwargs.get("sampling_params")
            kind = getattr(getattr(sampling, "output_kind", None), "name", "")
            return self._counted(outputs, request, _prompt_tokens(prompt), delta=kind == "DELTA")

        return counted

    async def _counted(self, outputs: Any, request: KeyRequest, prompt: int, *, delta: bool) -> AsyncIterator[Any]:
        """Yield the outputs of one generation, and count each: the one who reads may stop at any."""
        counted, cumulative = False, dict[int, int]()
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    if not counted:
                        self._count(request, prompt=len(output.prompt_token_ids or ()) or prompt)
                        counted = True
                    for one in output.outputs:
                        tokens = len(one.token_ids)
                        before = 0 if delta else cumulative.get(one.index, 0)
                        cumulative[one.index] = tokens
                        self._count(request, generated=max(0, tokens - before))
                    yield output
        except (asyncio.CancelledError, GeneratorExit):
            if not counted:
                self._count(request, prompt=prompt)
            raise

    def _count(self, request: KeyRequest, prompt: int = 0, generated: int = 0) -> None:
        request.prompt += prompt
        request.generated += generated
        if prompt:
            self.prompt.labels(request.name).inc(prompt)
        if generated:
            self.generated.labels(request.name).inc(generated)


def write_line(record: Mapping[str, Any]) -> None:
    """Write one JSON line to the error output, past what vLLM puts before each line of its own."""
    os.write(2, json.dumps(record).encode() + b"\n")


def _prompt_tokens(prompt: Any) -> int:
    ids = prompt.get("prompt_token_ids") if isinstance(prompt, Mapping) else getattr(prompt, "prompt_token_ids", None)
    return len(ids) if ids else 0
