"""A text ends as a sentence does before another one follows it."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint import sentences


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("no progress", "no progress."),
        ("no progress.", "no progress."),
        ("no progress.\n", "no progress."),
        ("no progress\n", "no progress."),
        ("no progress (supervise.live-grace)", "no progress (supervise.live-grace)."),
        ("no answer; is a replica running there?", "no answer; is a replica running there?"),
        ("stop!", "stop!"),
    ],
)
def test_a_text_ends_once(text: str, ended: str) -> None:
    assert sentences.ended(text) == ended
    assert sentences.ended(ended) == ended
