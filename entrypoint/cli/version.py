"""`dsv4 version`: print the version."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    commands.add("version", "Print the version.", run)


def run(_options: argparse.Namespace, _argv: list[str]) -> int:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError, version

    from ..errors import HostError

    try:
        print(f"dsv4-serve {version('dsv4-serve')}")
    except PackageNotFoundError:
        raise HostError(
            "dsv4-serve runs from a folder and is not installed, so it has no version; run `pip install .` there."
        ) from None
    return 0
