"""Pages whose tables are made: each stands between `<!-- table: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


def renewed(text: str, tables: Mapping[str, str], page: Path) -> str:
    """Return the text of a page with its tables made anew; raise ValueError for a table that is not there once."""
    for name, table in tables.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda found, body=table: f"{found[1]}{body}{found[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{page}: {count} tables {name!r}, there has to be one")
    return text
