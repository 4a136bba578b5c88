"""What can go wrong when a server is asked: nobody answers, or the answer is an error."""

from __future__ import annotations

from ..errors import UserError


class RequestFailed(UserError):
    """A server could not be asked (EX_UNAVAILABLE)."""

    exit_status = 69


class Unreachable(RequestFailed):
    """The server did not answer, or something else answered in its place."""


class Refused(RequestFailed):
    """
    The server answered with an error, which the text names.

    `reason` is the server's own sentence. It may quote a prompt, so it is kept out of the text, which probes show.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason

    def with_reason(self) -> str:
        """Return the text and the server's own sentence, for whoever sent the request."""
        return f"{self}: {self.reason}" if self.reason else str(self)
