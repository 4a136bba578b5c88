"""Numbers on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from dsv4_serve.entrypoint.cli import arguments


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "x", "", "604801"])
def test_a_time_is_finite_and_above_zero(text: str) -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"'{text}' is not a number of seconds above 0 and up to 604800"
    ):
        arguments.seconds(text)


@pytest.mark.parametrize(("read", "text", "value"), [(arguments.seconds, "0.5", 0.5), (arguments.hours, "168", 168)])
def test_a_time_that_is_taken(read: Callable[[str], float], text: str, value: float) -> None:
    assert read(text) == value


@pytest.mark.parametrize("text", ["0", "65536", "-1", "x", "", "٣", "1_0", "9" * 99])
def test_a_port_is_one_from_1_to_65535(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a port from 1 to 65535"):
        arguments.port(text)
    assert arguments.port("65535") == 65535
