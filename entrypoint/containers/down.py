"""Run `dsv4 down`: drain every replica, then stop the balancer, and remove both; the caches stay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .containers import CACHE, NETWORK, STOP_SECONDS
from .daemon import ROLE, Daemon, Log, engine_errors


def down(daemon: Daemon, log: Log) -> None:
    """Stop and remove only what `dsv4 up` made; running requests are finished first."""
    ours = list(daemon.ours().values())
    if not ours:
        log("`dsv4 up` has started nothing on this host")
    stop([container for container in ours if container.labels[ROLE] == "replica"], log)
    stop([container for container in ours if container.labels[ROLE] != "replica"], log)
    with engine_errors(f"Network {NETWORK} cannot be removed"):
        for network in daemon.client.networks.list(names=[NETWORK], filters={"label": f"{ROLE}=network"}):
            network.remove()
    if ours:
        log(f"the caches stay in volume {CACHE}; `docker volume rm {CACHE}` removes them")


def stop(containers: Sequence[Any], log: Log) -> None:
    """Stop containers at once, each within its own time, and remove them."""
    if containers:
        with ThreadPoolExecutor(len(containers)) as pool:
            list(pool.map(lambda container: _stop(container, log), containers))


def _stop(container: Any, log: Log) -> None:
    began = time.monotonic()
    seconds = int(container.labels.get(STOP_SECONDS, "10"))
    if container.status == "running":
        log(f"stopping {container.name}: running requests get up to {seconds} s")
    with engine_errors(f"{container.name} cannot be stopped"):
        container.stop(timeout=seconds)
        container.remove(force=True)
    log(f"removed {container.name} after {time.monotonic() - began:.0f} s")
