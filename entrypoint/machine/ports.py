"""Whether a TCP port is free, and which process holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import procfs
from ..listen import CannotListen, listener


@dataclass(frozen=True)
class RequiredPort:
    """An address to listen on, and the settings that change its host and its port."""

    host: str
    number: int
    """The TCP port; 0 is any free one."""
    host_setting: str
    port_setting: str


@dataclass(frozen=True)
class Port:
    """A port to listen on; `refused` is empty when it is free, `holder` where the process is not known."""

    host: str
    number: int
    setting: str
    """The setting to change when it is refused: the port, or the host when the address is `elsewhere`."""
    refused: str = ""
    holder: str = ""
    elsewhere: bool = False


def probe_port(port: RequiredPort) -> Port:
    """Listen there for a moment."""
    host, number = port.host, port.number
    try:
        listener(host, number).close()
    except CannotListen as error:
        if error.elsewhere:
            return Port(host, number, port.host_setting, str(error), elsewhere=True)
        return Port(host, number, port.port_setting, str(error), _holder(number) if error.taken else "")
    return Port(host, number, port.port_setting)


def _holder(number: int) -> str:
    """Name the listening process, `pid 42 (python3)`; empty when it is another user's or another container's."""
    pid = procfs.listener(number)
    try:
        return f"pid {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})" if pid else ""
    except OSError:
        return ""
