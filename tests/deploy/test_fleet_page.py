"""The page at the balancer's status port: a real HAProxy before real health servers, seen with a real Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from dsv4_serve.healthcheck import page
from dsv4_serve.healthcheck.state import Finding, Health, LastExit
from tests.support.balancer import CONFIGURATION, Names, balancer, free_port
from tests.support.browser import CHROMIUM, browser
from tests.support.health_server import served
from tests.support.patience import slowness

FLEET = CONFIGURATION.with_name("fleet.html")
PLAN = {"choices": {}, "settings": {}}


def test_the_policy_in_the_configuration_is_that_of_the_page() -> None:
    (given,) = re.findall(r'hdr Content-Security-Policy "(.*?)"', CONFIGURATION.read_text())
    assert given == page.policy(FLEET.read_text()), "write the right side into haproxy.cfg"


def test_both_pages_look_the_same() -> None:
    shared = [
        re.findall(r"/\* shared with .*? \*/(.*?)/\* end of", file.read_text(), re.DOTALL)
        for file in (page.FILE, FLEET)
    ]
    assert shared[0] == shared[1]
    assert len(shared[0]) == 1


def test_the_openedfits_into_a_buffer_of_haproxy() -> None:
    """A file that `http-request return` sends has to, and HAProxy does not start otherwise."""
    (size,) = re.findall(r"tune.bufsize (\d+)", CONFIGURATION.read_text())
    assert FLEET.stat().st_size < int(size) - 4096


def ready() -> Health:
    return Health(
        phase="ready", engine=1, generated_after=5.0, ready_after=6.0, gate=Finding("good"), corruption=Finding("good")
    )


def starting() -> Health:
    now = time.monotonic()
    return Health(
        started=now - 38,
        phase="loading weights",
        phase_began=now - 21,
        engine=1,
        percent=43.0,
        last_start={"loading weights": 2000.0},
    )


def held() -> Health:
    return Health(
        phase="backoff",
        backoff_until=time.monotonic() + 5000,
        key="sk-secret",
        plan=PLAN,
        last_exit=LastExit("hung", 83, "secret words"),
    )


class Fleet:
    """A balancer before three replicas, and a fourth address at which nothing listens."""

    def __init__(self, stack: ExitStack, binary: str, folder: Path) -> None:
        self.ready, health_port = ready(), free_port()
        names = Names()
        for number, health in enumerate((self.ready, starting(), held()), 2):
            address = f"127.0.0.{number}"
            stack.enter_context(served(health, health_port, address))
            names.running.append(address)
        names.running.append("127.0.0.9")
        ports = {"REPLICA_PORT": str(free_port()), "REPLICA_HEALTH_PORT": str(health_port)}
        self.front = ExitStack()
        stack.enter_context(self.front)
        running = self.front.enter_context(balancer(folder, names, binary=binary, **ports))
        self.url = f"http://127.0.0.1:{running.status_port}"


@pytest.fixture(scope="module")
def fleet(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(stack, binary, tmp_path_factory.mktemp("fleet"))


def ask(url: str, method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.request(method, url, headers=headers, trust_env=False)


@pytest.mark.process
@pytest.mark.slow
def test_only_the_progress_of_a_start_passes_the_status_port(fleet: Fleet) -> None:
    until = time.monotonic() + 30 * slowness()
    while (answer := ask(f"{fleet.url}/replica/1/startupz")).headers.get("x-replica") != "replica1":
        assert time.monotonic() < until, answer.text
        time.sleep(0.1)
    assert "phase" in answer.json()
    for path in (
        "/replica/1/plan",
        "/replica/1/status",
        "/replica/1/metrics",
        "/replica/1/startupz/x",
        "/replica/x/startupz",
        "/replica/1/%2e%2e/plan",
        "/replica/1/startupz%2f..%2fplan",
    ):
        assert ask(fleet.url + path, Authorization="Bearer sk-secret").status_code in (404, 503), path
    assert ask(f"{fleet.url}/replica/1/startupz?format=text").json()["phase"]
    assert ask(f"{fleet.url}/replica/1/startupz", "POST").status_code != 200
    assert "replicas,replica1" in ask(f"{fleet.url}/stats;csv").text


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_shows_each_replica_and_survives_the_end_of_the_balancer(fleet: Fleet, tmp_path: Path) -> None:
    with browser(tmp_path) as chromium, chromium.page(f"{fleet.url}/", width=390, dark=True) as opened:
        opened.until("document.getElementById('headline').textContent === '1 of 4 replicas ready'")
        opened.until("document.getElementById('replicas').textContent.includes('Held back')")
        rows = opened.value(
            "[...document.getElementById('replicas').rows].map((row) => [row.cells[0].textContent.split(':')[0], row.cells[1].textContent])"
        )
        states = {address: text.replace("\u00a0", " ") for address, text in rows}
        assert states.pop("127.0.0.2") == "Ready"
        assert re.fullmatch(r"StartingLoading weights: 43 %, about 3\d min \d+ s left", states.pop("127.0.0.3"))
        assert re.fullmatch(r"Held backhung; next start in 1 h 2\d min", states.pop("127.0.0.4"))
        assert states == {"127.0.0.9": "No answerits health port cannot be reached"}
        assert opened.value("document.documentElement.scrollWidth <= innerWidth")
        assert [one for one in opened.complaints() if "status of 503" not in one] == []
        assert {one["url"].startswith((fleet.url, "data:")) for one in opened.requests()} == {True}
        fleet.ready.draining = True
        opened.until("document.getElementById('headline').textContent === '0 of 4 replicas ready'")
        fleet.front.close()
        opened.until(r"/^No answer since \d\d:\d\d:\d\d$/.test(document.getElementById('headline').textContent)")
