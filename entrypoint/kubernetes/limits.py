"""Warn of numbers that exceed what was measured, or what the arithmetic of docs/results/fleet.md allows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .components import WAY_IN
from .edits import CELL, balancer_share, most_replicas
from .overlay import Overlay

CONNECTIONS = 4096
"""Client connections that one HAProxy takes (BALANCER_MAXCONN)."""
_ROUTER = 32
_SHARE_BY_DEFAULT = 32
_MODEL_GB, _GB_A_SECOND, _SLOW = 170, 1.1, 3600
"""W4A16's weights, network storage at 10 Gbit/s, and the seconds of loading that are worth a warning."""
_ROLLOUT_SECONDS, _LONG_ROLLOUT = 445, 4 * 3600
"""One replica: a drain of 145 s at most and a start of five minutes, assumed."""
_PAGE = "docs/how-to/operate-a-fleet.md"


def warnings(overlay: Overlay) -> tuple[str, ...]:
    """Return what exceeds a limit, each as a sentence without its full stop."""
    return tuple(_warnings(overlay, most_replicas(overlay)))


def _warnings(overlay: Overlay, most: int) -> Iterator[str]:
    if most > CELL:
        yield from _of_cells(overlay, most)
    elif most * _ROLLOUT_SECONDS > _LONG_ROLLOUT and overlay.nodes == 1:
        hours = most * _ROLLOUT_SECONDS / 3600
        yield (
            f"a rollout takes about {hours:.1f} h: {most} replicas, one at a time, {_ROLLOUT_SECONDS} s each (assumed);"
            f" raise maxUnavailable if that is too long ({_PAGE}#an-upgrade)"
        )
    yield from _of_the_way_in(overlay, min(most, CELL))
    if not overlay.weights.component.startswith(("host-path", "image")):
        yield from _of_storage(min(most, CELL))


def _of_cells(overlay: Overlay, most: int) -> Iterator[str]:
    cells = -(-most // CELL)
    by_haproxy = f"HAProxy finds {CELL} of them, and the others get no requests"
    reason = by_haproxy if "haproxy" in overlay.extras else f"no fleet of more than {CELL} was measured"
    yield (
        f"{most} replicas: {reason}; write {cells} cells of {-(-most // cells)} or fewer, each with its own"
        f" --namespace ({_PAGE}#cells)"
    )


def _of_the_way_in(overlay: Overlay, most: int) -> Iterator[str]:
    share = balancer_share(overlay) or _SHARE_BY_DEFAULT
    if "haproxy" in overlay.extras and most * share > CONNECTIONS:
        yield (
            f"{most} replicas take {most * share:,} requests ({share} each), and HAProxy takes {CONNECTIONS:,}"
            f" connections; use cells of {CONNECTIONS // share} or fewer replicas"
        )
    if "router" in overlay.extras and most > _ROUTER:
        yield (
            f"{most} replicas: vllm-router with cache_aware was measured to {_ROUTER}, and every replica tokenizes"
            " every prompt; use haproxy"
        )
    if most > 1 and overlay.nodes == 1 and not set(WAY_IN) & set(overlay.extras):
        yield "without a balancer, connections are spread and requests are not; use --with haproxy"


def _of_storage(most: int) -> Iterator[str]:
    seconds = most * _MODEL_GB / _GB_A_SECOND
    if seconds > _SLOW:
        yield (
            f"{most} replicas that start together read {most * _MODEL_GB / 1000:.1f} TB from one claim:"
            f" {seconds / 3600:.1f} h at 10 Gbit/s (computed, {_MODEL_GB} GB each), and a start may take 4 h; fill the"
            " nodes' disks with --with node-disk"
        )
