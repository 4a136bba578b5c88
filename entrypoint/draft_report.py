"""
Ask a server that has just started a few fixed questions, and say how much of its draft head's work was accepted.

A draft head whose weights were shuffled loads like a good one, and every answer stays right: only vLLM's counters show
it. Acceptance = accepted / drafted tokens, from `vllm:spec_decode_num_{accepted,draft}_tokens_total`.
"""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException

from dsv4_serve.entrypoint.plan import DRAFT_TOKENS, Plan

TOKENS = 32
FLOOR = 0.10
"""Below this a head is broken: good ones accept 58 to 96 % of prose, code and reasoning (artifact cards, 2026-05)."""
PROMPTS = (
    "One, two, three, four, five, six, seven, eight, nine, ten, eleven,",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the",
    "When water is heated to one hundred degrees at sea level, it",
)

_COUNTER = r"^vllm:spec_decode_num_{}_tokens_total(?:\{{.*\}})? (\S+)$"
_UNANSWERED = (OSError, HTTPException)
_http = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323, SLF001 - our own child
)


def has_draft_head(plan: Plan) -> bool:
    """Tell whether a plan speculates with the model's own MTP head."""
    said = {name: setting.value for name, setting in plan.flags.items()}
    return said.get("speculative-config.method") in ("mtp", "deepseek_mtp") and said.get(DRAFT_TOKENS) != 0


def report(plan: Plan) -> str:
    """Wait until the planned server answers, ask, and return one sentence; blocks for as long as loading takes."""
    flags = {name: setting.value for name, setting in plan.flags.items()}
    url = _url(flags)
    key = plan.environment(secrets=True).get("VLLM_API_KEY") or (flags.get("api-key") or [""])[0]
    try:
        _wait(url)
        model = json.loads(_request(f"{url}/v1/models", key))["data"][0]["id"]
        before = draft_counters(_request(f"{url}/metrics", key))
        for prompt in PROMPTS:
            _complete(url, key, model, prompt)
        now = draft_counters(_request(f"{url}/metrics", key))
        drafted, accepted = (after - was for after, was in zip(now, before, strict=True))
    except (*_UNANSWERED, ValueError, LookupError) as error:
        return f"draft head: not measured ({error})."
    return sentence(drafted, accepted)


def draft_counters(metrics: str) -> tuple[int, int]:
    """Return draft tokens made and accepted since start, summed over labels, from Prometheus text; 0 when absent."""
    drafted, accepted = (
        sum(int(float(value)) for value in re.findall(_COUNTER.format(kind), metrics, re.MULTILINE))
        for kind in ("draft", "accepted")
    )
    return drafted, accepted


def sentence(drafted: int, accepted: int) -> str:
    """Return what the counts of draft tokens mean."""
    if not drafted:
        return "draft head: it drafted nothing for the test prompts; check speculative-config in `dsv4 explain`."
    counted = f"draft head: {accepted} of {drafted} draft tokens accepted ({accepted / drafted:.0%})"
    if accepted / drafted >= FLOOR:
        return f"{counted}."
    return (
        f"{counted}: WARNING, it drafts noise, and decoding is slower than without it. Check the mtp.* tensors of the"
        " checkpoint and `dsv4 patch verify`, or set NUM_SPECULATIVE_TOKENS=0."
    )


def _url(flags: Mapping[str, object]) -> str:
    scheme = "https" if flags.get("ssl-certfile") else "http"
    host = str(flags.get("host") or "127.0.0.1")
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{flags.get('port', 8000)}"


def _wait(url: str, pause: float = 2.0) -> None:
    while True:
        try:
            with _http.open(f"{url}/health", timeout=10):
                return
        except _UNANSWERED:
            time.sleep(pause)


def _request(url: str, key: str, body: Mapping[str, object] | None = None) -> str:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    with _http.open(urllib.request.Request(url, data, headers), timeout=600) as answer:  # noqa: S310
        return str(answer.read().decode())


def _complete(url: str, key: str, model: str, prompt: str) -> None:
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    _request(f"{url}/v1/completions", key, body)
