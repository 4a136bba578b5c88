"""Every error in the balancer's configuration has a body of the same shape and type as those of the replicas."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dsv4_serve.healthcheck.error_body import error_body

TEXT = (Path(__file__).parents[2] / "deploy/haproxy/haproxy.cfg").read_text(encoding="utf-8").partition("\nbackend ")[0]
BEGINS = re.findall(r"set-var-fmt\(txn\.error\) '(.*?)'", TEXT)
ERRORS = re.findall(r"(?:http-error|return) status (4\d\d|5\d\d) .*?lf-string '(.*?)'(?: |$)", TEXT, re.MULTILINE)


def test_all_errors_are_found() -> None:
    """A guard of the pattern."""
    assert len(ERRORS) == len(re.findall(r"(?:http-error|return) status [45]", TEXT)) > 10
    assert {int(status) for status, _ in ERRORS} >= {400, 401, 404, 405, 408, 413, 429, 500, 502, 503, 504}


@pytest.mark.parametrize(
    ("path", "begin", "of_server"),
    list(zip(["/v1/completions", "/v1/messages"], BEGINS, ["server_error", "api_error"], strict=True)),
)
@pytest.mark.parametrize(("status", "text"), ERRORS)
def test_an_error_has_the_shape_and_the_type_of_its_api(
    status: str, text: str, path: str, begin: str, of_server: str
) -> None:
    text = re.sub(r'%\[var\(txn\.error(?:,".*?"\))?\)?\]', lambda _: begin, text)
    text = re.sub(r"%\[var\(txn\.server_error(?:,server_error)?\)\]", of_server, text)
    body, ours = json.loads(text), json.loads(error_body(path, int(status), "why"))
    assert body["error"].keys() == ours["error"].keys()
    assert body["error"]["type"] == ours["error"]["type"]
    assert body.get("type") == ours.get("type")


@pytest.mark.parametrize("text", re.findall(r"http-error status \d+ .*?lf-string '(.*?)'$", TEXT, re.MULTILINE))
def test_what_is_refused_before_its_route_is_known_has_openai_s_shape(text: str) -> None:
    """As of HTTP/2 with a scheme that is none: no rule of the frontend has set a variable yet."""
    unset = re.sub(
        r"%\[var\([\w.]+,(?:\"(.*?)\"|(\w+))\)\]", lambda found: (found[1] or found[2]).replace("\\", ""), text
    )
    body = json.loads(unset)
    assert list(body) == ["error"]
    assert body["error"]["type"]
