"""
vLLM's counters, read from the Prometheus text of its `/metrics`.

Names: `v1/metrics/loggers.py` and `v1/spec_decode/metrics.py` of vLLM 0.32.0. They have two sources, which change
independently (`AsyncLLM.output_handler`, `Scheduler.update_from_output`):

* `iteration_tokens_total`, `generation_tokens_total`, `prompt_tokens_total` and `request_success_total` come from the
  outputs of a step. A chunk of a prefill has no output, so these stand still until the whole prompt is processed.
* `kv_cache_usage_perc`, `prefix_cache_*`, `num_requests_*` and `spec_decode_*` come from the scheduler, every step.
  It allocates KV blocks chunk by chunk (that a whole prompt fits is only checked), so the usage grows throughout a long
  prefill.
  Observed: with 2000 tokens in 125 steps of 16, the usage rose by one block of 128 tokens at a time while every count
  of outputs stood still (a Llama on vLLM 0.32.0 for CPU, checked against its log of iterations, 2026-11-22; unmeasured
  on a GPU).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# A regular expression takes 0.3 ms for the 62 kB of a real answer, prometheus_client's parser 106 ms: it is polled.
_SAMPLE = re.compile(
    r"^vllm:(iteration_tokens_total_count|generation_tokens_total|prompt_tokens_total|request_success_total"
    r"|time_to_first_token_seconds_sum|time_to_first_token_seconds_count"
    r"|prefix_cache_queries_total|prefix_cache_hits_total|kv_cache_usage_perc|num_requests_running|num_requests_waiting|spec_decode_num_drafts_total"
    r"|spec_decode_num_draft_tokens_total|spec_decode_num_accepted_tokens_total"
    r'|spec_decode_num_accepted_tokens_per_pos_total(?=.*[{,]position="(\d+)"))(?:\{.*\})? (\S+)',
    re.MULTILINE,
)
_FINISHED = re.compile(r"^vllm:request_success_total\{(.*)\} (\S+)", re.MULTILINE)
_REASONS = ("abort", "error")  # of FinishReason in v1/engine/__init__.py, those without a whole answer
_PER_POSITION = "spec_decode_num_accepted_tokens_per_pos_total"


@dataclass(frozen=True)
class Counters:
    """
    One reading, summed over the engines and every other label. Counts run since the server's start.

    `steps` are engine steps that had output; `kv_usage` is the used share of the KV cache, 0 to 1 for each engine.
    """

    steps: int = 0
    generated: int = 0
    prompt: int = 0
    finished: int = 0
    aborted: int = 0
    errors: int = 0
    """Those among the finished requests that were cut short, and those that failed inside vLLM."""
    kv_usage: float = 0.0
    running: int = 0
    waiting: int = 0
    prefix_queries: int = 0
    """Prompt tokens looked up in the prefix cache, and those found there."""
    prefix_hits: int = 0
    drafts: int = 0
    """Drafts made, each of up to `num_speculative_tokens` draft tokens."""
    drafted: int = 0
    accepted: int = 0
    accepted_at: tuple[int, ...] = ()
    """Draft tokens accepted at each position of a draft, the first one first."""
    first_tokens: int = 0
    """Requests that got their first token, and the seconds that they waited for it, all together."""
    first_token_seconds: float = 0.0
    engines: int = 0
    """Engines whose shares of the KV cache `kv_usage` adds up."""
    speculates: bool = False
    """Whether vLLM counts draft tokens at all, which it does from its start if it has a speculative config."""


def finite(text: str) -> float:
    """Return a number; raise ValueError for anything else, and for one that is not finite."""
    if not math.isfinite(number := float(text)):
        raise ValueError("a counter is not a finite number")
    return number


def read(metrics: str) -> Counters:
    """Return the counters in the text of `/metrics`, 0 for an absent one; raise ValueError for a value that is none."""
    sums: dict[str, float] = {}
    positions: dict[int, float] = {}
    engines = 0
    for name, position, value in _SAMPLE.findall(metrics):
        sums[name] = sums.get(name, 0.0) + float(value)
        engines += name == "kv_cache_usage_perc"
        if name == _PER_POSITION:
            positions[int(position)] = positions.get(int(position), 0.0) + float(value)
    for labels, value in _FINISHED.findall(metrics):
        for reason in _REASONS:
            if f'finished_reason="{reason}"' in labels:
                sums[reason] = sums.get(reason, 0.0) + float(value)
    if not all(map(math.isfinite, [*sums.values(), *positions.values()])):
        raise ValueError("a counter is not a finite number")

    def count(name: str) -> int:
        return int(sums.get(name, 0.0))

    return Counters(
        steps=count("iteration_tokens_total_count"),
        generated=count("generation_tokens_total"),
        prompt=count("prompt_tokens_total"),
        finished=count("request_success_total"),
        aborted=count("abort"),
        errors=count("error"),
        kv_usage=sums.get("kv_cache_usage_perc", 0.0),
        running=count("num_requests_running"),
        waiting=count("num_requests_waiting"),
        prefix_queries=count("prefix_cache_queries_total"),
        prefix_hits=count("prefix_cache_hits_total"),
        drafts=count("spec_decode_num_drafts_total"),
        drafted=count("spec_decode_num_draft_tokens_total"),
        accepted=count("spec_decode_num_accepted_tokens_total"),
        accepted_at=tuple(int(positions[index]) for index in sorted(positions)),
        first_tokens=count("time_to_first_token_seconds_count"),
        first_token_seconds=sums.get("time_to_first_token_seconds_sum", 0.0),
        engines=engines,
        speculates="spec_decode_num_draft_tokens_total" in sums,
    )
