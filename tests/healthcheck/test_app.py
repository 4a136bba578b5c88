"""What the health server answers, called as a server calls an ASGI application."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.healthcheck import checks, page
from dsv4_serve.healthcheck.app import answer, health_app
from dsv4_serve.healthcheck.state import Finding, Health, LastExit

KEY = "sk-very-secret"
PROBES = ("startupz", "livez", "readyz")


def ready(**changes: Any) -> Health:
    known = {
        "phase": "ready",
        "engine": 4711,
        "generated_after": 5.0,
        "ready_after": 6.0,
        "gate": Finding("good"),
        "corruption": Finding("good"),
    }
    return Health(**{**known, **changes})


def ask(health: Health, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=health_app(health))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize("probe", PROBES)
def test_a_replica_that_serves_answers_200_with_its_checks(probe: str) -> None:
    answer = ask(ready(), f"/{probe}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.text.endswith(f"{probe} check passed\n")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_start_that_knows_its_time_left_says_when_to_retry(form: str) -> None:
    health = Health(phase="loading weights", phase_began=100.0, last_start={"loading weights": 30.5})
    for probe, after in (("startupz", "28"), ("readyz", "28"), ("livez", None)):
        asked = {"method": "GET", "path": f"/{probe}", "query_string": f"format={form}".encode(), "headers": []}
        assert answer(health, 103.0, asked).headers.get("retry-after") == after
        assert answer(health, 200.0, asked).headers.get("retry-after") is None  # longer than the last one


@pytest.mark.parametrize(("probe", "status"), [("startupz", 503), ("livez", 200), ("readyz", 503)])
def test_a_replica_that_starts_is_live_only(probe: str, status: int) -> None:
    assert ask(Health(), f"/{probe}").status_code == status


@pytest.mark.parametrize("probe", PROBES)
def test_json_says_the_same_as_text(probe: str) -> None:
    answer = ask(Health(), f"/{probe}?format=json")
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    lines = [f"[+]{c['name']} ok" if c["ok"] else f"[-]{c['name']} failed: {c['why']}" for c in told["checks"]]
    assert ask(Health(), f"/{probe}").text == "\n".join([*lines, f"{probe} check {told['status']}", ""])


def test_every_check_can_be_queried_alone() -> None:
    health = ready(gate=Finding("", "2 of 122 draft tokens accepted"))
    for group, known in checks.GROUPS.items():
        for name in known:
            answer = ask(health, f"/{group}z/{name}")
            assert answer.status_code == (503 if name == "draft-gate" else 200)
            assert len(answer.text.splitlines()) == 2
    assert ask(health, "/readyz/draft-gate?format=json").json()["checks"][0]["why"] == "2 of 122 draft tokens accepted"


def test_an_unknown_check_is_answered_with_the_known_ones() -> None:
    answer = ask(ready(), "/livez/draft-gate")
    assert (answer.status_code, answer.text) == (404, "/livez has no such check; it has process, progress.\n")


@pytest.mark.parametrize("path", ["/nothing", "/readyz/", "/readyz/draft-gate/", "/plan/x", "/ready", "/z", "/healthz"])
def test_an_unknown_path_is_404_in_one_sentence(path: str) -> None:
    answer = ask(ready(), path)
    assert answer.status_code == 404
    assert answer.text.count("\n") == 1


def test_an_unknown_format_is_400() -> None:
    answer = ask(ready(), "/readyz?format=xml")
    assert (answer.status_code, answer.text) == (400, "format must be text or json.\n")


def test_other_query_parameters_are_ignored() -> None:
    assert ask(ready(), "/readyz?verbose&timeout=5s").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_405(method: str) -> None:
    answer = ask(ready(), "/readyz", method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/readyz", "/plan", "/status", "/metrics", "/nothing"])
def test_head_answers_like_get_without_the_body(path: str) -> None:
    health = ready(plan={"argv": []})
    got, head = ask(health, path), ask(health, path, "HEAD")
    assert head.content == b""
    assert head.status_code == got.status_code
    assert head.headers["content-type"] == got.headers["content-type"]
    assert path == "/metrics" or head.headers["content-length"] == str(len(got.content))


def test_the_root_lists_what_there_is() -> None:
    listed = ask(Health(), "/")
    assert all(f"/{name}" in listed.text for name in (*PROBES, "plan", "status", "metrics"))
    assert listed.headers["vary"] == "accept"


def test_a_browser_gets_the_page_and_the_page_is_the_same_in_every_state() -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    states = (Health(), ready(key=KEY, plan={"argv": ["inner-name"]}), Health(phase="backoff"))
    answers = [ask(health, "/", Accept=browser) for health in states]
    assert {answer.content for answer in answers} == {page.FILE.read_bytes()}
    assert {answer.headers["content-type"] for answer in answers} == {"text/html; charset=utf-8"}
    assert answers[0].headers["referrer-policy"] == "no-referrer"
    assert ask(Health(), "/readyz", Accept=browser).headers["content-type"] == "text/plain; charset=utf-8"


def test_the_policy_of_the_page_allows_its_own_script_and_style_and_no_other_server() -> None:
    policy = ask(Health(), "/", Accept="text/html").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("script-src").startswith("'sha256-")
    assert rules.pop("style-src").startswith("'sha256-")
    assert (rules.pop("connect-src"), rules.pop("img-src")) == ("'self'", "data:")
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert set(rules.values()) == {"'none'"}
    assert "unsafe" not in policy


def test_before_there_is_a_plan_nothing_of_the_last_exit_is_told() -> None:
    answer = ask(Health(last_exit=LastExit("config", 78, "KEY=sk-secret is wrong")), "/status")
    assert (answer.status_code, answer.text) == (503, "There is no plan yet (resolving).\n")


def test_the_plan_is_answered_as_it_is() -> None:
    plan = {"argv": ["vllm", "serve"], "versions": {"vllm": "0.32.0"}}
    answer = ask(ready(plan=plan), "/plan")
    assert (answer.status_code, answer.json()) == (200, plan)


def test_before_there_is_a_plan_the_answer_says_so() -> None:
    answer = ask(Health(), "/plan")
    assert (answer.status_code, answer.text) == (503, "There is no plan yet (resolving).\n")


def test_metrics_have_the_type_that_prometheus_wants() -> None:
    answer = ask(Health(), "/metrics", Accept="application/openmetrics-text; version=x, */*")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "dsv4_ready 0.0\n" in answer.text


@pytest.mark.parametrize("path", ["/plan", "/status", "/metrics"])
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY} ", 200),
        ("", 401),
        (KEY, 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Basic {KEY}", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
    ],
)
def test_with_a_key_set_plan_status_and_metrics_want_it(path: str, header: str, status: int) -> None:
    answer = ask(ready(key=KEY, plan={"argv": []}), path, **({"Authorization": header} if header else {}))
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer realm="dsv4"'
        assert KEY not in answer.text


def test_a_key_of_any_letters_is_compared_byte_by_byte() -> None:
    async def status(key: str, sent: bytes) -> int:
        seen: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            seen.append(message)

        async def receive() -> dict[str, Any]:
            return {}

        scope = {
            "method": "GET",
            "path": "/plan",
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer " + sent)],
        }
        await health_app(ready(key=key, plan={"a": 1}))(scope, receive, send)
        return int(seen[0]["status"])

    assert asyncio.run(status("schlüssel", "schlüssel".encode())) == 200
    assert asyncio.run(status("k\udcff", b"k\xff")) == 200
    assert asyncio.run(status("k\udcff", b"k\xfe")) == 401


@pytest.mark.parametrize("path", ["/", *(f"/{p}{form}" for p in PROBES for form in ("", "?format=json"))])
def test_what_is_open_says_nothing_of_the_key_or_the_plan(path: str) -> None:
    plan = {"env": {"API_KEY_FILE": "/run/secrets/key"}, "argv": ["--served-model-name", "inner-name"]}
    last = LastExit("config", 78, "inner-name is wrong", "/run/secrets")
    for health in (ready(key=KEY, plan=plan, last_exit=last), Health(key=KEY, plan=plan, last_exit=last)):
        answer = ask(health, path)
        assert answer.status_code in (200, 503)
        assert not any(secret in answer.text for secret in (KEY, "/run/secrets", "inner-name"))


@given(st.text(max_size=40), st.binary(max_size=40), st.sampled_from(["GET", "HEAD"]))
def test_no_path_and_no_query_makes_it_fail(path: str, query: bytes, method: str) -> None:
    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] in (200, 400, 401, 404, 503)

    async def receive() -> dict[str, Any]:
        return {}

    scope = {"method": method, "path": f"/{path}", "query_string": query, "headers": []}

    async def answer() -> None:
        await health_app(Health(key=KEY))(scope, receive, send)

    asyncio.run(answer())


def test_the_clock_is_the_one_that_is_given() -> None:
    async def send() -> Any:
        app = health_app(Health(started=0.0, phase_began=0.0), clock=lambda: 42.0)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://r") as client:  # type: ignore[arg-type]
            return json.loads((await client.get("/startupz?format=json")).text)

    assert asyncio.run(send())["seconds_since_start"] == 42.0
