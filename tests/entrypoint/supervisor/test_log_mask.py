"""No secret of a plan is in the log that is passed on, however its bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.supervisor.log_mask import LogMask

TEXT = b"a hunter2 b\nhunter2hunter2\n{'token': 'abc'} abc hunt\nthe end: hunter"
MASKED = b"a *** b\n******\n{'token': ***} abc hunt\nthe end: hunter"


def passed_on(text: bytes, cuts: list[int]) -> bytes:
    mask, at = LogMask({"hunter2", "abc"}), 0
    out = b""
    for cut in [*sorted(cuts), len(text)]:
        out += mask.feed(text[at:cut])
        at = cut
    return out + mask.close()


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_a_secret_is_masked_wherever_chunks_end(cuts: list[int]) -> None:
    assert passed_on(TEXT, cuts) == MASKED


def test_only_what_may_become_a_secret_is_held_back() -> None:
    mask = LogMask({"hunter2", "hunter22"})
    assert [mask.feed(chunk) for chunk in (b"10%", b" h", b"un", b"t\n", b"x hunter", b"22 y", b"hunter\n")] == [
        *(b"10%", b" ", b"", b"hunt\n", b"x ", b"*** y", b"hunter\n"),
    ]
    assert mask.close() == b""


@pytest.mark.parametrize("secrets", [set(), {"other-secret"}])
def test_a_log_without_secrets_is_passed_on_as_it_is(secrets: set[str]) -> None:
    mask = LogMask(secrets)
    assert mask.feed(TEXT) + mask.close() == TEXT
