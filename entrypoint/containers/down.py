"""`dsv4 down`: drain every replica, then stop the balancer, and remove both; the caches stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .containers import CACHE, NETWORK, STOP_SECONDS
from .daemon import ROLE, Daemon, saying

Say = Callable[[str], None]


def down(daemon: Daemon, say: Say) -> None:
    """Stop and remove what `dsv4 up` made, and nothing else; running requests are finished first."""
    ours = list(daemon.ours().values())
    if not ours:
        say("nothing of `dsv4 up` is here")
    stop([one for one in ours if one.labels[ROLE] == "replica"], say)
    stop([one for one in ours if one.labels[ROLE] != "replica"], say)
    with saying(f"Network {NETWORK} cannot be removed"):
        for network in daemon.client.networks.list(names=[NETWORK], filters={"label": f"{ROLE}=network"}):
            network.remove()
    if ours:
        say(f"the caches stay in volume {CACHE}; `docker volume rm {CACHE}` removes them")


def stop(containers: Sequence[Any], say: Say) -> None:
    """Stop containers at once, each within its own time, and remove them."""
    if containers:
        with ThreadPoolExecutor(len(containers)) as pool:
            list(pool.map(lambda one: _stop(one, say), containers))


def _stop(container: Any, say: Say) -> None:
    began = time.monotonic()
    seconds = int(container.labels.get(STOP_SECONDS, "10"))
    if container.status == "running":
        say(f"stopping {container.name}: running requests get up to {seconds} s")
    with saying(f"{container.name} cannot be stopped"):
        container.stop(timeout=seconds)
        container.remove(force=True)
    say(f"{container.name} is gone after {time.monotonic() - began:.0f} s")
