"""The default ports, the health server's address, and opening a TCP port for listening."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

API_PORT = 8000
"""vLLM's default."""
HEALTH_PORT = 8001
"""The health server's default."""
HEALTH_HOST = "0.0.0.0"  # noqa: S104 - balancers connect from outside; responses contain no prompt and no key
BACKLOG = 1024
MAX_PORT = 65535
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)  # EINVAL: a link-local address without its link


class CannotListen(OSError):
    """The port cannot be opened. `taken`: another process uses it; `elsewhere`: the address is not this host's."""

    def __init__(self, why: str, *, taken: bool = False, elsewhere: bool = False) -> None:
        super().__init__(why)
        self.taken, self.elsewhere = taken, elsewhere


def health_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Return where the health server listens; port 0 takes a free one. Raise ConfigError for an invalid port."""
    text = environ.get("DSV4_HEALTH_PORT") or str(HEALTH_PORT)
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PORT):
        from .errors import ConfigError

        raise ConfigError(f"environment DSV4_HEALTH_PORT = {text!r} is not valid; use a port from 0 to {MAX_PORT}.")
    return environ.get("DSV4_HEALTH_HOST") or HEALTH_HOST, int(text)


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens, bound as vLLM binds (SO_REUSEADDR); `::` takes IPv4 too. Raise CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OverflowError:
        raise CannotListen(f"ports run from 0 to {MAX_PORT}") from None
    except OSError as error:
        why = str(error.strerror or error).partition(" (while attempting")[0]
        number = error.errno or 0
        elsewhere = number < 0 or number in _NOT_HERE  # negative numbers are the resolver's
        raise CannotListen(why, taken=number == errno.EADDRINUSE, elsewhere=elsewhere) from None
