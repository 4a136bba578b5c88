"""The errors of a request to a server: no answer, or an answer that is an error."""

from __future__ import annotations

from ..errors import UserError
from ..exit_status import ExitStatus
from ..secret import without_password


class RequestFailed(UserError):
    """A request to a server failed; a password in its URL is masked."""

    exit_status = ExitStatus.HOST

    def __init__(self, text: str) -> None:
        super().__init__(without_password(text))


class Unreachable(RequestFailed):
    """The server did not answer, or something else answered in its place."""


class OutOfFiles(Unreachable):
    """This process has no file descriptor left for a connection, which says nothing about the server."""


class Refused(RequestFailed):
    """
    The server answered with an error, which the message names.

    `reason` is the server's own sentence. It may quote a prompt, so it is kept out of the message, which probes show.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason

    def with_reason(self) -> str:
        """Return the message and the server's own sentence, for the sender of the request."""
        return f"{self}: {self.reason}" if self.reason else str(self)
