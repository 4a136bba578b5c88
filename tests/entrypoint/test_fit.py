"""The memory arithmetic against figures from logs."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint import fit


@pytest.mark.parametrize(
    ("total", "size", "logged"),
    [
        (142.00, 2, 72.93),  # W4A16 without its draft head, 2 x H200 (its card, 2026-05)
        (160.2, 4, 42.9),  # NVFP4, 4 x RTX PRO 6000 (its card, 2026-05: 43)
    ],
)
def test_weights_a_gpu_are_those_of_the_logs(total: float, size: int, logged: float) -> None:
    assert fit.weights_gib(total, 3.86, size) == pytest.approx(logged, rel=0.01)


@pytest.mark.parametrize(
    ("context", "tokens", "asynchronous", "gib"),
    [
        # admission of one request of 1,048,576 tokens in GiB, from logs of 2 x RTX PRO 6000 Max-Q (third party, 2026)
        (1_048_576, 512, True, 4.65),
        (1_048_576, 2048, True, 5.93),
        (1_048_576, 8192, True, 11.04),
        (1_048_576, 8192, False, 7.63),
        (1_000_000, 2048, True, 5.732),
    ],
)
def test_one_full_request_needs_what_vllm_asked_for(context: int, tokens: int, asynchronous: bool, gib: float) -> None:
    assert fit.request_gib(context, tokens, 1_099_584, asynchronous=asynchronous) == pytest.approx(gib, abs=0.01)


def test_what_is_left_for_the_cache_is_what_a_start_at_one_million_tokens_logged() -> None:
    """W4A16, 2 x RTX PRO 6000, utilization 0.95: 8.04 GiB available (its repository, 2026-05)."""
    left = fit.cache_gib(95.01, 0.95, fit.weights_gib(158.19, 3.86, 2))
    assert left == pytest.approx(8.04, abs=0.5)
