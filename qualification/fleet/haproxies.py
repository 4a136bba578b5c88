"""HAProxy with the configuration that is shipped; HAPROXY names the program, where it is not on the PATH."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from qualification.fleet.standing import Front
from qualification.fleet.timings import RTX_PRO_6000_TP2
from tests.support import balancer as shipped
from tests.support.balancer import Names, haproxy

NO_DELAY = "    option http-no-delay\n"


def program() -> str:
    """Return HAPROXY or the installed one; raise FileNotFoundError where there is none."""
    if (binary := haproxy()) is None:
        raise FileNotFoundError("no haproxy is installed (HAPROXY names one)")
    return binary


def named(binary: str) -> str:
    """Return HAProxy with its version, as results name a balancer."""
    said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stdout
    return f"HAProxy {said.split()[2].split('-')[0]}"


@contextmanager
def haproxy_before(
    addresses: list[str], port: int, health_port: int, folder: Path, variant: str = ""
) -> Iterator[Front]:
    """HAProxy; `variant` names another program than HAPROXY or the installed one; `delay` leaves it its delay."""
    binary = (variant if variant != "delay" else "") or program()
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "haproxy.cfg"
    as_shipped = shipped.CONFIGURATION.read_text()
    text = as_shipped.replace(NO_DELAY, "") if variant == "delay" else as_shipped
    configuration.write_text(text)
    for name in ("keys.lua", "fleet.html"):
        shutil.copy(shipped.CONFIGURATION.with_name(name), folder)
    changes = tuple(line.strip() for line in text.splitlines() if line not in as_shipped.splitlines())
    names = Names()
    names.running = list(addresses)
    env = {
        "REPLICA_PORT": str(port),
        "REPLICA_HEALTH_PORT": str(health_port),
        "REPLICA_PLACES": str(max(len(addresses), 8)),
        "REPLICA_MAXCONN": str(2 * RTX_PRO_6000_TP2.max_num_seqs),
    }
    before, shipped.CONFIGURATION = shipped.CONFIGURATION, configuration
    try:
        with shipped.balancer(folder, names, binary=binary, **env) as running:
            yield Front(
                named(binary),
                lambda: ("127.0.0.1", running.port),
                lambda: running.up() & running.up("sessions"),
                lambda: [psutil.Process(running.process.pid), *psutil.Process(running.process.pid).children()],
                running.status_port,
                names.running,
                changes,
            )
    finally:
        shipped.CONFIGURATION = before
