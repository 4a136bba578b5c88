"""Fingerprints tell configurations apart and give nothing away."""

from __future__ import annotations

from dsv4_serve.entrypoint.fingerprint import fingerprint


def test_no_secret_can_be_read_from_a_fingerprint() -> None:
    assert len(fingerprint("a", {"b": 1})) == 16
    assert fingerprint("a", {"b": 1}) != fingerprint("a", {"b": 2})
