"""
Check what other people gave, and make the list and the page of it.

    python -m tools.community check [FILE...]   # all of qualification/results/community, and the list and the page too
    python -m tools.community write             # make entrypoint/catalog/community.json and docs/results/community.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint import plain_file
from dsv4_serve.entrypoint.catalog import community
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.shared_result import SharedResult, problems
from tools.tables import renewed

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / community.FOLDER
PAGE = ROOT / "docs/results/community.md"
NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,99}\.json$")
LARGEST = 1
"""MiB."""
NONE = "No result has been given yet.\n"


def faults(path: Path, today: date, hardware: Sequence[str]) -> list[str]:
    """Return what speaks against one file."""
    if not NAME.match(path.name):
        return ["its name has to be lower case letters, digits, `.`, `_` and `-`, and end with .json."]
    try:
        body = plain_file.parse_json(plain_file.read(path, LARGEST))
    except OSError as error:
        return [f"it cannot be read ({error.strerror})."]
    except ValueError as error:
        return [f"it is not valid JSON ({error})."]
    return problems(body, today, hardware)


def given(folder: Path) -> list[dict[str, Any]]:
    """Return the results of a folder whose files are valid, the newest first."""
    found = []
    for path in sorted(folder.glob("*.json")):
        body = SharedResult.model_validate(plain_file.parse_json(plain_file.read(path, LARGEST)))
        found.append({**body.model_dump(), "file": path.name})
    return sorted(found, key=lambda one: (one["date"], one["file"]), reverse=True)


def listed(found: Sequence[dict[str, Any]]) -> str:
    """Return the list that is installed."""
    return json.dumps(found, indent=1) + "\n"


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the tables of the page, one for each kind of GPU."""
    parts = []
    for hardware in sorted({one["hardware"] for one in found}):
        lines = [
            f"\n### {hardware}\n",
            "| who, when | profile, model | GPUs, weights | figures | vLLM, driver | file |",
            "|---|---|---|---|---|---|",
        ]
        parts += [*lines, *map(_row, community.of(found, hardware=hardware)), ""]
    return "\n".join(parts) + "\n" if parts else NONE


def _row(one: community.Given) -> str:
    file = f"[{one['file']}](../../{community.FOLDER}/{one['file']})"
    cells = [
        community.credit(one),
        f"`{one['profile']}`, {one['model']}",
        f"{one['gpus']} x {one['hardware']}, {one['weights']}",
        community.figures(one),
        f"vLLM {one['versions']['vllm']}, {one['driver'] or 'no driver'}",
        file,
    ]
    return f"| {' | '.join(cells)} |"


def made(folder: Path) -> dict[Path, str]:
    """Return the text of every file that is made."""
    found = given(folder)
    page = renewed(PAGE.read_text(encoding="utf-8"), {"community": table(found)}, PAGE)
    return {community.FILE: listed(found), PAGE: page}


def check(paths: Sequence[Path], today: date) -> Iterator[str]:
    """Yield what is wrong with these files."""
    hardware = Catalog([]).names("hardware")
    for path in paths:
        yield from (f"{path.name}: {fault}" for fault in faults(path, today, hardware))


def stray(folder: Path) -> Iterator[str]:
    """Yield what else is in the folder."""
    for path in sorted(folder.iterdir()):
        if path.name != "README.md" and path.suffix != ".json":
            yield f"{path.name}: the folder holds results only, files of JSON."


def main(argv: Sequence[str]) -> int:
    """Run one of the two; return the status."""
    if not argv or argv[0] not in ("check", "write"):
        sys.stderr.write(__doc__ or "")
        return 64
    today = datetime.now(UTC).date()
    paths = [Path(word) for word in argv[1:]]
    wrong = list(check(paths or sorted(FOLDER.glob("*.json")), today)) + ([] if paths else list(stray(FOLDER)))
    if not wrong and not paths:
        for path, text in made(FOLDER).items():
            if argv[0] == "write":
                path.write_text(text, encoding="utf-8")
            elif path.read_text(encoding="utf-8") != text:
                wrong.append(f"{path.relative_to(ROOT)} is out of date: run `python -m tools.community write`.")
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
