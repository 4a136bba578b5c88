"""Replicas on groups of GPUs."""

from __future__ import annotations

from itertools import combinations

import pytest

from dsv4_serve.entrypoint.containers.placement import place, read
from dsv4_serve.entrypoint.errors import ConfigError, HostError
from dsv4_serve.entrypoint.machine.nvml import Pair
from dsv4_serve.entrypoint.machine.topology import Topology


def box(gpus: int, near: tuple[tuple[int, int], ...] = ()) -> Topology:
    """GPUs across two sockets, but for the pairs that share a host bridge."""
    pairs = [Pair(a, b, "PHB" if (a, b) in near else "SYS") for a, b in combinations(range(gpus), 2)]
    return Topology(tuple(range(gpus)), tuple(pairs))


def test_replicas_get_the_pairs_that_are_close_and_not_the_first_ones():
    assert place(box(4, near=((0, 2), (1, 3))), 2) == ((0, 2), (1, 3))


def test_as_many_replicas_as_fit_are_placed_when_no_number_is_given():
    assert len(place(box(8), 2)) == 4
    assert len(place(box(7), 2)) == 3


def test_gpus_are_left_over_when_fewer_replicas_are_requested():
    assert place(box(4, near=((2, 3),)), 2, replicas=1) == ((2, 3),)


def test_too_few_gpus_are_refused_with_the_numbers():
    with pytest.raises(
        HostError, match=r"2 replicas of 2 GPUs each: 4 GPUs needed, but this host shows 3;.*--replicas or --tp"
    ):
        place(box(3), 2, replicas=2)


def test_a_host_without_gpus_is_refused_although_no_number_is_given():
    with pytest.raises(HostError, match="1 replica of 4 GPUs each: 4 GPUs needed, but this host shows none"):
        place(Topology(), 4)


def test_more_replicas_than_the_balancer_has_places_for_are_refused():
    with pytest.raises(ConfigError, match="--replicas 9: the balancer serves at most 8"):
        place(Topology(), 0, replicas=9)
    with pytest.raises(ConfigError, match="--gpus is given 9 times"):
        read([str(gpu) for gpu in range(9)], 1)
    assert len(place(box(9), 1)) == 8


def test_replicas_on_cpus_have_no_gpus():
    assert place(Topology(), 0, replicas=3) == ((), (), ())
    assert place(Topology(), 0) == ((),)


def test_gpus_can_be_named_by_hand():
    assert read(["0,3", " 1, 2"], 2, (0, 1, 2, 3)) == ((0, 3), (1, 2))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["0,x"], "must be GPU numbers"),
        (["0,"], "must be GPU numbers"),
        (["0"], "names 1 GPU, but a replica takes 2"),
        (["0,1", "1,2"], "names GPU 1 twice"),
        (["0,0"], "names GPU 0 twice"),
        (["0,9"], "names GPU 9; this host shows 0, 1, 2, 3"),
    ],
)
def test_gpus_that_cannot_be_meant_are_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        read(texts, 2, (0, 1, 2, 3))
