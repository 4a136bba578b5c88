"""Which pages may read the balancer's answers: none as shipped, else those of CORS_ORIGINS."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.deploy.pair import Pair
from tests.deploy.test_balancer import ports
from tests.support.balancer import KEY, Balancer, balancer
from tests.support.patience import until

PAGE, OTHER = "https://chat.example", "http://localhost:3000"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-evil"}
FOREIGN = [
    *("https://evil.example", "https://chat.example.evil.example", "http://chat.example", "https://chat.example:444"),
    *("https://CHAT.example", "null", "*", "", f"{PAGE}, https://evil.example", f"https://evil.example, {PAGE}"),
    *(f"{PAGE} {OTHER}", f"{PAGE}/", f"{PAGE}.", "https://chat_example"),
]


def cors(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.fixture(scope="module")
def front(pair: Pair, tmp_path_factory: pytest.TempPathFactory, binary: str) -> Iterator[Balancer]:
    """A balancer with two origins before the pair."""
    folder = tmp_path_factory.mktemp("cors")
    with balancer(folder, pair.names, binary=binary, **ports(pair), CORS_ORIGINS=f"{PAGE} {OTHER}") as running:
        assert until(lambda: running.up() == {"127.0.0.2", "127.0.0.3"}, 20)
        yield running


@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_as_shipped_no_page_may_read_anything(pair: Pair, method: str) -> None:
    with pair.balancer.client() as client:
        answer = client.request(method, "/v1/models", headers={"Origin": PAGE, **PREFLIGHT})
        assert answer.status_code == (405 if method == "OPTIONS" else 200)
        assert cors(answer) == {}
    with pair.balancer.client(None) as client:
        assert client.options("/v1/models", headers={"Origin": PAGE, **PREFLIGHT}).status_code == 401


@pytest.mark.parametrize("origin", [PAGE, OTHER])
@pytest.mark.parametrize(("path", "method"), [("/v1/messages", "POST"), ("/v1/models", "GET"), ("/v1/models/a", "GET")])
def test_a_preflight_of_a_listed_page_needs_no_key(front: Balancer, path: str, method: str, origin: str) -> None:
    with front.client(None) as client:
        answer = client.options(path, headers={"Origin": origin, **PREFLIGHT})
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = cors(answer)
    assert allowed["access-control-allow-origin"] == origin
    assert allowed["access-control-allow-methods"] == method
    names = {name.strip().lower() for name in allowed["access-control-allow-headers"].split(",")}
    assert {"authorization", "content-type", "x-api-key", "anthropic-version", "x-stainless-lang"} <= names
    assert not {"*", "cookie", "x-evil"} & names
    assert "access-control-allow-credentials" not in allowed
    assert answer.headers["vary"] == "Origin"


def test_a_listed_page_reads_answers_and_errors_and_when_to_retry(front: Balancer) -> None:
    for key, status in ((KEY, 200), (None, 401)):
        with front.client(key) as client:
            answer = client.get("/v1/models", headers={"Origin": PAGE})
        assert answer.status_code == status
        assert cors(answer) == {
            "access-control-allow-origin": PAGE,
            "access-control-expose-headers": "Retry-After, X-Request-ID",
        }
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", FOREIGN)
def test_no_other_page_may(front: Balancer, origin: str) -> None:
    with front.client(None) as client:
        answer = client.options("/v1/models", headers={"Origin": origin, **PREFLIGHT})
        assert (answer.status_code, cors(answer)) == (401, {})
    with front.client() as client:
        answer = client.get("/v1/models", headers={"Origin": origin})
        assert (answer.status_code, cors(answer)) == (200, {})
        assert answer.headers["vary"] == "Origin"


def test_two_origins_in_one_request_are_none(front: Balancer) -> None:
    with front.client() as client:
        for pair in ([PAGE, "https://evil.example"], ["https://evil.example", "https://other.example"]):
            answer = client.get("/v1/models", headers=[("Origin", origin) for origin in pair])
            assert cors(answer).get("access-control-allow-origin") is None


def test_a_preflight_of_a_closed_route_or_without_a_method_is_not_answered(front: Balancer) -> None:
    with front.client(None) as client:
        assert client.options("/metrics", headers={"Origin": PAGE, **PREFLIGHT}).status_code == 401
        assert client.options("/v1/models", headers={"Origin": PAGE}).status_code == 401


def test_without_an_origin_nothing_is_added(front: Balancer) -> None:
    with front.client() as client:
        assert cors(client.get("/v1/models")) == {}
