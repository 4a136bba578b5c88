"""Decide which GPUs each replica gets: disjoint groups of GPUs that are close to each other."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError, HostError
from ..machine.topology import Topology, groups

Group = tuple[int, ...]
"""NVML's indexes of the GPUs of one replica; empty on CPUs."""
MOST = 8
"""The most replicas that the balancer serves (server-template in haproxy.cfg)."""


def place(topology: Topology, size: int, replicas: int | None = None) -> tuple[Group, ...]:
    """
    Return one group of `size` GPUs for each replica, lowest index first; as many as fit when no number is given.

    A size of 0 is a replica on CPUs: one, when no number is given. Raise HostError when the GPUs are too few,
    ConfigError when the balancer cannot serve so many.
    """
    if replicas is not None and replicas > MOST:
        raise ConfigError(
            f"--replicas {replicas}: the balancer serves at most {MOST}; start the others on another host."
        )
    if size == 0:
        return ((),) * (replicas or 1)
    count = replicas or min(MOST, max(1, len(topology.gpus) // size))
    if count * size > len(topology.gpus):
        raise HostError(
            f"{_replicas(count)} of {_gpus(size)} each: {count * size} GPUs needed, but this host shows"
            f" {len(topology.gpus) or 'none'}; lower --replicas or --tp."
        )
    return tuple(sorted(groups(topology, size)[:count]))


def read(texts: Sequence[str], size: int, known: Sequence[int] | None = None) -> tuple[Group, ...]:
    """
    Return the groups that `--gpus 0,1 --gpus 2,3` names; `known` are the GPUs of this host, None when unknown.

    Raise ConfigError unless each is a list of `size` numbers, and each GPU is named once.
    """
    if len(texts) > MOST:
        raise ConfigError(f"--gpus is given {len(texts)} times, but the balancer serves at most {MOST} replicas.")
    placed: list[Group] = []
    for text in texts:
        numbers = [number.strip() for number in text.split(",")]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise ConfigError(f"--gpus {text}: must be GPU numbers separated by commas, as in --gpus 0,1.")
        group = tuple(map(int, numbers))
        if len(group) != size:
            raise ConfigError(f"--gpus {text}: names {_gpus(len(group))}, but a replica takes {size} (--tp).")
        placed.append(group)
    every = [gpu for group in placed for gpu in group]
    if twice := sorted({gpu for gpu in every if every.count(gpu) > 1}):
        raise ConfigError(f"--gpus names GPU {twice[0]} twice; a GPU belongs to one replica.")
    if known is not None and (unknown := [gpu for gpu in every if gpu not in known]):
        raise ConfigError(f"--gpus names GPU {unknown[0]}; this host shows {', '.join(map(str, known)) or 'none'}.")
    return tuple(placed)


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"


def _replicas(count: int) -> str:
    return f"{count} replica{'s' * (count != 1)}"
