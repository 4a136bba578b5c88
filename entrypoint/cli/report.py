"""`dsv4 report`: put what was measured on one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..terminal import printable

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add("report", "Put every result of a machine on one HTML page for offline use.", run)
    parser.add_argument(
        "--from",
        dest="folder",
        type=Path,
        default=Path("qualification"),
        metavar="FOLDER",
        help="read results from this folder (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="write the page to FILE (default: %(default)s)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="show the results that this project published too, below your own",
    )


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Write the page."""
    from ..report import page

    print(printable(str(page.write(options.folder, options.out, published=options.published))))
    return 0
