"""Print the record, or with --write keep it."""

from __future__ import annotations

import sys

from tools.golden import RECORD, cases, grid
from tools.golden.command import sandbox


def main() -> None:
    """Run every command once."""
    with sandbox() as commands:
        text = "\n".join([*cases.lines(commands), "", *grid.lines(commands), ""]).lstrip("\n")
    if sys.argv[1:] == ["--write"]:
        RECORD.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
