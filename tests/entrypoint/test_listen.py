"""Where the health server listens, as every command reads it."""

from __future__ import annotations

import re

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.listen import health_address


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, ("0.0.0.0", 8001)),
        ({"DSV4_HEALTH_PORT": "", "DSV4_HEALTH_HOST": ""}, ("0.0.0.0", 8001)),
        ({"DSV4_HEALTH_PORT": "0"}, ("0.0.0.0", 0)),
        ({"DSV4_HEALTH_PORT": "65535", "DSV4_HEALTH_HOST": "::1"}, ("::1", 65535)),
    ],
)
def test_the_environment_moves_it(environ: dict[str, str], address: tuple[str, int]) -> None:
    assert health_address(environ) == address


@pytest.mark.parametrize("port", ["http", "-1", "65536", "8001.0", "²", " 1"])
def test_what_is_no_port_is_refused(port: str) -> None:
    sentence = f"environment DSV4_HEALTH_PORT = {port!r} is not valid; use a port from 0 to 65535."
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        health_address({"DSV4_HEALTH_PORT": port})
