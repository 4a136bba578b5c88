"""Numbers that exceed what was measured or counted are said, with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from dsv4_serve.entrypoint.kubernetes import edits, limits
from dsv4_serve.entrypoint.kubernetes.overlay import Overlay
from dsv4_serve.entrypoint.kubernetes.write import SHIPPED

ROOT = SHIPPED.parents[1]
DISK = ("--weights", "hostpath:/srv/models")


@pytest.mark.parametrize(
    ("profile", "argv", "says"),
    [
        ("524k", ("--replicas", "64", *DISK, "--with", "haproxy"), ["a rollout takes about 7.9 h: 64 replicas"]),
        ("524k", ("--replicas", "32", *DISK, "--with", "haproxy"), []),
        ("524k", ("--replicas", "65", *DISK, "--with", "haproxy"), ["65 replicas: HAProxy finds 64 of them.*2 cells of 33"]),
        ("524k", ("--replicas", "200", *DISK, "--with", "haproxy"), ["200 replicas: .*write 4 cells of 50 or fewer"]),
        ("524k", ("--replicas", "8", *DISK, "--with", "haproxy,autoscale=65"), ["65 replicas: HAProxy finds 64"]),
        ("524k", ("--replicas", "200", *DISK, "--with", "gateway-inference"), ["no fleet of more than 64 was measured"]),
        ("524k", ("--replicas", "33", *DISK, "--with", "router"), ["a rollout", "measured to 32, and every replica tokenizes"]),
        ("524k", ("--replicas", "2", *DISK), ["without a balancer, connections are spread"]),
        ("524k", ("--replicas", "1", *DISK), []),
        ("pro", ("--replicas", "17", "--tp", "8", *DISK, "--with", "haproxy"), [r"4,352 requests \(256 each\).*cells of 16"]),
        ("pro", ("--replicas", "16", "--tp", "8", *DISK, "--with", "haproxy"), []),
        ("524k", ("--replicas", "24", "--with", "haproxy"), [r"read 4.1 TB from one claim: 1.0 h at 10 Gbit/s"]),
        ("524k", ("--replicas", "23", "--with", "haproxy"), []),
    ],
)  # fmt: skip
def test_a_number_above_its_limit_is_said(
    overlay_for: Callable[..., Overlay], profile: str, argv: tuple[str, ...], says: list[str]
) -> None:
    hardware = "b300" if profile == "pro" else "h200"
    found = overlay_for("--profile", profile, "--hardware", hardware, *argv).warnings
    assert len(found) == len(says)
    assert [text for text, sentence in zip(says, found, strict=True) if not re.search(text, sentence)] == []


def test_the_limits_are_those_of_the_balancer() -> None:
    deployment = (SHIPPED / "components/haproxy/deployment.yaml").read_text()
    assert f'{{name: REPLICA_PLACES, value: "{edits.CELL}"}}' in deployment
    haproxy = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    assert f'"${{BALANCER_MAXCONN-{limits.CONNECTIONS}}}"' in haproxy
    assert f'"${{REPLICA_MAXCONN-{limits._SHARE_BY_DEFAULT}}}"' in haproxy


def test_the_page_that_warnings_name_has_the_sections() -> None:
    page = (ROOT / limits._PAGE).read_text(encoding="utf-8")
    for heading in ("## Cells", "## An upgrade"):
        assert heading in page
