"""The share of requests that HAProxy sends to candidates, and its counts of both sides; haproxy.cfg has the route."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from ..client import http
from ..client.counters import finite
from ..client.errors import Refused, RequestFailed, Unreachable
from .addresses import CanaryAddress, Resolve, at_once

_COUNT = re.compile(
    r"^haproxy_backend_(http_requests_total|http_responses_total|server_aborts_total)"
    r'\{proxy="(\w+)"(?:,code="(\w+)")?\} (\S+)',
    re.MULTILINE,
)
_SIDES = {"candidates": "candidate", "replicas": "stable", "sessions": "stable"}
"""Backends of haproxy.cfg, and whose they are."""
FOR_GOOD = 10 * 365 * 24 * 3600
"""Seconds that the share of a promoted image applies for."""


class CanaryShare(BaseModel):
    """The answer at /canary: a share in percent, and for how many seconds it still applies; below 0, no longer."""

    share: int = Field(ge=0, le=100)
    seconds: int

    @property
    def now(self) -> int:
        """The share that applies now."""
        return self.share if self.seconds > 0 else 0


@dataclass(frozen=True)
class BalancerTraffic:
    """Requests of clients to one side since HAProxy's start, and those that failed there."""

    requests: int = 0
    failed: int = 0

    def since(self, before: BalancerTraffic) -> BalancerTraffic:
        """Return what came after `before`; everything where HAProxy started again."""
        if self.requests < before.requests or self.failed < before.failed:
            return self
        return BalancerTraffic(self.requests - before.requests, self.failed - before.failed)

    def plus(self, other: BalancerTraffic) -> BalancerTraffic:
        """Return the sum."""
        return BalancerTraffic(self.requests + other.requests, self.failed + other.failed)


@dataclass(frozen=True)
class Balancers:
    """Status ports of the HAProxys before the same replicas; a name with several addresses is several of them."""

    urls: Sequence[str]
    key: str = field(repr=False)
    resolve: Resolve

    def shares(self) -> dict[str, CanaryShare]:
        """Return the share by address; raise RequestFailed."""
        return at_once(lambda address: self._ask("GET", address, {}), self._each())

    def set(self, share: int, seconds: int) -> None:
        """Set the share everywhere, for some seconds; raise RequestFailed after all have been tried."""

        def failure(address: CanaryAddress) -> RequestFailed | None:
            try:
                self._ask("PUT", address, {"X-Share": str(share), "X-Seconds": str(seconds)})
            except RequestFailed as error:
                return error
            return None

        for failed in filter(None, at_once(failure, self._each()).values()):
            raise failed

    def traffic(self) -> Mapping[str, Mapping[str, BalancerTraffic]]:
        """Return the traffic of `candidate` and `stable` by address; raise RequestFailed."""

        def read(address: CanaryAddress) -> Mapping[str, BalancerTraffic]:
            answer = http.get_accepted(f"{address.url}/metrics", None, name=address.name)
            try:
                return counted(answer.text)
            except ValueError as error:
                raise Unreachable(f"{address.url}/metrics: {error}; name the status port of HAProxy.") from None

        return at_once(read, self._each())

    def _each(self) -> list[CanaryAddress]:
        """Return all addresses; a name without one stays, so that the request to it fails."""
        return [address for url in self.urls for address in self.resolve(url) or [CanaryAddress(url)]]

    def _ask(self, method: str, address: CanaryAddress, headers: Mapping[str, str]) -> CanaryShare:
        import httpx

        route = f"{address.url}/canary"
        try:
            answer = http.request(method, route, self.key, name=address.name, headers=headers)
        except httpx.HTTPError as error:
            raise Unreachable(f"{route}: no answer ({http.cause(error)}); name the status port of HAProxy.") from None
        if answer.status_code == 401:
            raise Refused(f"{route}: HTTP 401 (unauthorized); pass the balancer's canary key with --canary-key-file.")
        if not answer.is_success:
            raise Refused(f"{route}: HTTP {answer.status_code}; start HAProxy with CANDIDATE_NAME and CANARY_KEY_FILE.")
        return http.parsed(
            CanaryShare, answer, "the answer is not a share", "; start HAProxy with CANDIDATE_NAME and CANARY_KEY_FILE."
        )


def counted(metrics: str) -> dict[str, BalancerTraffic]:
    """Return the traffic of each side from HAProxy's metrics; failed are 5xx and cut answers; raise ValueError."""
    sides = {"candidate": BalancerTraffic(), "stable": BalancerTraffic()}
    for name, proxy, code, value in _COUNT.findall(metrics):
        if side := _SIDES.get(proxy):
            count = int(finite(value))
            requests = count if name == "http_requests_total" else 0
            failed = count if code == "5xx" or name == "server_aborts_total" else 0
            sides[side] = sides[side].plus(BalancerTraffic(requests, failed))
    return sides
