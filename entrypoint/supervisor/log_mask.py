"""Mask secrets in the bytes of vLLM's log: vLLM prints its flags, and masks only three of them itself (0.32.0)."""

from __future__ import annotations

from collections.abc import Iterable

from ..secret import MASK, forms


class LogMask:
    """Of one stream: a secret that two chunks divide is held back until its rest comes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        written = {form.encode(errors="surrogateescape") for secret in secrets for form in forms(secret)}
        self._forms = sorted(written, key=len, reverse=True)
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be passed on."""
        if not self._forms:
            return chunk
        chunk, self._rest = self._masked(self._rest + chunk), b""
        if not chunk.endswith(b"\n"):
            begun = self._begun(chunk)
            chunk, self._rest = chunk[: len(chunk) - begun], chunk[len(chunk) - begun :]
        return chunk

    def close(self) -> bytes:
        """Return what was held back."""
        rest, self._rest = self._rest, b""
        return rest

    def _masked(self, chunk: bytes) -> bytes:
        for form in self._forms:
            if form in chunk:
                chunk = chunk.replace(form, MASK.encode())
        return chunk

    def _begun(self, chunk: bytes) -> int:
        """Return how many of the last bytes may be the beginning of a secret."""
        most = min(len(self._forms[0]) - 1, len(chunk))
        ends = (size for size in range(most, 0, -1) if any(form.startswith(chunk[-size:]) for form in self._forms))
        return next(ends, 0)
