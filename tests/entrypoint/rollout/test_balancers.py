"""Balancers whose name has no address."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.rollout.balancers import Balancers

GONE = Balancers(["http://balancer.invalid:8404"], "key", lambda _url: [])


@pytest.mark.parametrize("ask", [lambda: GONE.set(0, 1), GONE.shares, GONE.traffic], ids=["set", "shares", "traffic"])
def test_a_name_without_an_address_is_no_success(ask: object) -> None:
    """A canary would be promoted, or rolled back, without a balancer that knows of it."""
    assert callable(ask)
    with pytest.raises(Unreachable, match="balancer.invalid"):
        ask()
