"""
SGLang on a folder without weights: its command, and the variables that simulate what `dsv4 bench --without-weights` does.

Read in SGLang 0.5.23. `SGLANG_SIMULATE_ACC_LEN` is the mean number of tokens that a step yields; each step draws it once for
all requests, rounded down or up. `real-draft-token` answers with the drafter's tokens, so that requests differ. The first
layers, which route by a token's number, keep to their own experts.
"""

from __future__ import annotations

from collections.abc import Sequence

from dsv4_serve.entrypoint.client import http
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.errors import RequestFailed

MULTICAST = (
    "--enable-nccl-nvls",
    "--enable-symm-mem",
    "--enable-torch-symm-mem",
    "--enable-mscclpp",
    "mnnvl",
    "cutedsl",
)
"""Flags and values that use NVLink multicast, which can put the GPUs of a shared host out of service."""


def variables(rates: Sequence[float]) -> dict[str, str]:
    """Return the variables for random experts, and for drafts that are accepted at these rates, up to each position."""
    routing = {"SGLANG_SIMULATE_UNIFORM_EXPERTS": "1"}
    if not rates:
        return routing
    return routing | {
        "SGLANG_SIMULATE_ACC_LEN": f"{1 + sum(rates):.4f}",
        "SGLANG_SIMULATE_ACC_METHOD": "match-expected",
        "SGLANG_SIMULATE_ACC_TOKEN_MODE": "real-draft-token",
    }


def drafting(method: str, tokens: int) -> list[str]:
    """Return the flags for so many draft tokens of an MTP head or of DSpark; raise ValueError for another method."""
    if not tokens:
        return []
    if method == "mtp":
        steps = ["--speculative-num-steps", str(tokens), "--speculative-num-draft-tokens", str(tokens + 1)]
        return ["--speculative-algorithm", "EAGLE", "--speculative-eagle-topk", "1", *steps]
    if method == "dspark":
        return ["--speculative-algorithm", "DSPARK", "--speculative-dspark-block-size", str(tokens)]
    raise ValueError(f"no flags of SGLang are known for the drafter {method!r}")


def command(folder: str, tp: int, draft: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the command without host and port; raise ValueError for a flag that uses NVLink multicast."""
    words = {word for flag in flags for word in str(flag).split("=")}
    if used := sorted(words & {*MULTICAST}):
        raise ValueError(f"{used[0]} uses NVLink multicast, which can put a shared host's GPUs out of service")
    served = ["--model-path", folder, "--served-model-name", "deepseek-v4-flash", "--tp", str(tp)]
    return ["sglang", "serve", *served, "--load-format", "dummy", "--trust-remote-code", *draft, *flags]


def tokens_a_step(where: Endpoint) -> float | None:
    """Return how many tokens a step of a request yielded since the start, None without drafts or another answer."""
    try:
        state = http.get(f"{where.url}/server_info", None).json()["internal_states"][0]
        return round(float(state["avg_spec_accept_length"]), 3)
    except (RequestFailed, ValueError, LookupError, TypeError):
        return None
