"""The default ports of a replica; listening on a TCP port, or saying why nobody can."""

from __future__ import annotations

import errno
import socket

API_PORT = 8000
"""vLLM's, where none is named."""
HEALTH_PORT = 8001
"""The health server's, where none is named."""
BACKLOG = 1024
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)  # EINVAL: a link-local address without its link


class CannotListen(OSError):
    """Nobody can listen there: the message says why; `taken` when another does, `elsewhere` when the host is wrong."""

    def __init__(self, why: str, *, taken: bool = False, elsewhere: bool = False) -> None:
        super().__init__(why)
        self.taken, self.elsewhere = taken, elsewhere


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens, bound as vLLM binds (SO_REUSEADDR); `::` takes IPv4 too. Raise CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OverflowError:
        raise CannotListen("ports are 0 to 65535") from None
    except OSError as error:
        why = str(error.strerror or error).partition(" (while attempting")[0]
        number = error.errno or 0
        elsewhere = number < 0 or number in _NOT_HERE  # below 0 are the resolver's
        raise CannotListen(why, taken=number == errno.EADDRINUSE, elsewhere=elsewhere) from None
